"""What the user gave vLLM stays; what is given twice is refused."""

from __future__ import annotations

from typing import Any

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner import offline
from onceedit_vllm.serving.wiring import PROCESSOR, with_processor, with_settings


def test_the_processor_is_the_one_that_offline_engines_get() -> None:
    assert PROCESSOR == offline.PROCESSOR


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, [PROCESSOR]),
        ([], [PROCESSOR]),
        (["a:B", "c:D"], ["a:B", "c:D", PROCESSOR]),
        ([PROCESSOR, "a:B"], [PROCESSOR, "a:B"]),
    ],
)
def test_other_processors_stay_and_ours_is_listed_once(listed: list[str] | None, expected: list[str]) -> None:
    assert with_processor(listed) == expected


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (None, {"onceedit": {"pack": "p"}}),
        ({"backend": 1}, {"backend": 1, "onceedit": {"pack": "p"}}),
        ({"onceedit": {"fusion": {"top_k": 4}}}, {"onceedit": {"fusion": {"top_k": 4}, "pack": "p"}}),
    ],
)
def test_settings_join_what_is_there(theirs: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    assert with_settings(theirs, {"pack": "p"}) == expected


def test_a_setting_given_twice_is_refused_even_if_equal() -> None:
    theirs = {"onceedit": {"pack": "p", "weight": "alpha"}}
    with pytest.raises(BadInputError, match="gives pack, weight, and so do"):
        with_settings(theirs, {"weight": "alpha", "pack": "p", "scope": "weight"})
    assert theirs == {"onceedit": {"pack": "p", "weight": "alpha"}}


def test_settings_that_are_no_object_are_refused() -> None:
    with pytest.raises(BadInputError, match=r'"onceedit" must be an object of settings, not True'):
        with_settings({"onceedit": True}, {"pack": "p"})
