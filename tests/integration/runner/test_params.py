"""What vLLM's own sampling parameters mean for a row."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from onceedit_vllm.runner.params import row_of, wants_search
from onceedit_vllm.runner.row import Row

# Takes seconds to import, so this is no unit test.
vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
pytestmark = pytest.mark.integration


def params(**fields: Any) -> Any:
    return vllm.SamplingParams(**{"temperature": 0.0, **fields})


def make_row(**fields: Any) -> Row | None:
    return row_of(params(**fields), [1, 2, 3], "all", Counter())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"seed": 3, "max_tokens": 5, "stop": ["."], "ignore_eos": True, "n": 1}, True),
        ({"top_p": 0.5, "top_k": 3, "min_p": 0.1}, True),  # vLLM drops these where it is greedy
        ({"extra_args": {"onceedit": {"alpha": 1.0}}}, True),
        ({"temperature": 0.7}, False),
        ({"temperature": 1e-4}, False),
        ({"presence_penalty": 0.1}, False),
        ({"frequency_penalty": -0.1}, False),
        ({"repetition_penalty": 1.1}, False),
        ({"logprobs": 0}, False),
        ({"logprobs": 5}, False),
        ({"logit_bias": {4: -1.0}}, False),
        ({"logit_bias": {}}, True),
    ],
)
def test_only_plain_greedy_requests_want_the_search(fields: dict[str, Any], expected: bool) -> None:
    assert wants_search(params(**fields)) is expected
    row = make_row(**fields)
    assert row is not None
    assert row.want_search is expected


def test_a_request_becomes_a_row() -> None:
    row = make_row(logit_bias={4: -1.0}, extra_args={"onceedit": {"alpha": 0.25}})
    assert row is not None
    assert list(row.prompt_ids) == [1, 2, 3]
    assert row.options.alpha == 0.25
    assert row.logit_bias == {4: -1.0}
    assert row.output_ids == []


def test_no_bias_is_none() -> None:
    row = make_row(logit_bias={})
    assert row is not None
    assert row.logit_bias is None


@pytest.mark.parametrize("off", [{"onceedit": False}, {"onceedit": 0}, {"onceedit": {"enabled": "off"}}])
def test_a_request_without_edits_has_no_row(off: dict[str, Any]) -> None:
    assert make_row(extra_args=off) is None


@pytest.mark.parametrize("bad", [{"onceedit": "perhaps"}, {"onceedit": {"alpha": 7}}, {"onceedit_x": 1}])
def test_what_admission_would_have_refused_does_not_kill_a_worker(bad: dict[str, Any]) -> None:
    row = make_row(extra_args=bad)
    assert row is None or row.options.alpha is None


def test_the_extra_arguments_of_others_are_theirs() -> None:
    row = make_row(extra_args={"somebody": {"alpha": 7}})
    assert row is not None
    assert row.options.alpha is None
