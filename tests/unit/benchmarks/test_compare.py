"""The comparison of two result files: what is better, what is worse, and what cannot be said."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compare import Change, IncomparableError, compare, figures_of, is_regression

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
RESULT: dict[str, Any] = {
    "command": "benchmarks/fusion.py --threads 2",
    "machine": "x86_64, 2 cores",
    "torch_threads": 2,
    "commit": "a" * 40,
    "versions": {"torch": "2.13.0"},
    "cases": [
        {"name": "small", "V": 8192, "batch": 1, "fast_ms": 2.0, "dense_ms": 80.0, "token_agreement": 1.0},
        {"name": "small", "V": 8192, "batch": 8, "fast_ms": 4.0, "dense_ms": 90.0, "token_agreement": 0.5},
    ],
    "throughput": {"tokens_per_s": 100.0},
    "edits": {"right": [14, 14]},
    "failures": [],
}


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    """The result with one value replaced."""
    result = copy.deepcopy(RESULT)
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return result


def regressions(new: dict[str, Any], **options: Any) -> list[str]:
    return [change.name for change in compare(RESULT, new, **options) if is_regression(change, 0.1)]


def test_only_what_has_a_direction_is_a_figure() -> None:
    figures = figures_of(RESULT)
    assert {name: (figure.higher_is_better, figure.is_ratio) for name, figure in figures.items()} == {
        "cases/small V=8192 batch=1/fast_ms": (False, False),
        "cases/small V=8192 batch=1/token_agreement": (True, True),
        "cases/small V=8192 batch=8/fast_ms": (False, False),
        "cases/small V=8192 batch=8/token_agreement": (True, True),
        "throughput/tokens_per_s": (True, False),
        "edits/right": (True, True),
        "failures": (False, True),
    }


@pytest.mark.parametrize(
    ("name", "higher_is_better"),
    [
        ("seconds", False),
        ("attach_seconds", False),
        ("ms_per_batch", False),
        ("bytes_held", False),
        ("peak_mb", False),
        ("speedup", True),
        ("hit_rate", True),
        ("requests_per_s", True),
        ("same_token_exact", True),
        ("missed", False),
    ],
)
def test_the_name_tells_the_direction(name: str, higher_is_better: bool) -> None:
    assert figures_of({name: 3})[name].higher_is_better == higher_is_better


def test_a_group_lends_its_direction_to_its_members() -> None:
    assert not figures_of({"find_us": {"median": 3.0}})["find_us/median"].higher_is_better


@pytest.mark.parametrize("name", ["dense_ms", "plain_seconds", "wanted_us", "characters", "V", "batch"])
def test_baselines_settings_and_unknown_names_are_no_figures(name: str) -> None:
    assert figures_of({name: 3}) == {}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["cases", 1, "fast_ms"], 4.3, []),
        (["cases", 1, "fast_ms"], 4.5, ["cases/small V=8192 batch=8/fast_ms"]),
        (["cases", 1, "fast_ms"], 1.0, []),
        (["cases", 0, "token_agreement"], 0.8, ["cases/small V=8192 batch=1/token_agreement"]),
        (["cases", 0, "token_agreement"], math.nan, ["cases/small V=8192 batch=1/token_agreement"]),
        (["throughput", "tokens_per_s"], 80.0, ["throughput/tokens_per_s"]),
        (["throughput", "tokens_per_s"], 200.0, []),
        (["edits", "right"], [12, 14], ["edits/right"]),
        (["failures"], ["a token"], ["failures"]),
        (["cases", 0, "dense_ms"], 800.0, []),
    ],
)
def test_a_regression_is_what_is_worse_by_more_than_the_tolerance(
    path: list[Any], value: Any, expected: list[str]
) -> None:
    assert regressions(changed(path, value)) == expected


def test_the_order_of_cases_does_not_matter() -> None:
    assert all(change.worse == 0.0 for change in compare(RESULT, changed(["cases"], RESULT["cases"][::-1])))


def test_equal_entries_are_told_apart_by_their_order() -> None:
    figures = figures_of({"cases": [{"name": "x", "fast_ms": 1}, {"name": "x", "fast_ms": 2}]})
    assert [(name, figure.value) for name, figure in figures.items()] == [
        ("cases/x/fast_ms", 1.0),
        ("cases/x #2/fast_ms", 2.0),
    ]


def test_another_machine_is_refused_and_forced_by_its_ratios() -> None:
    other = changed(["machine"], "arm64, 8 cores")
    other["cases"][0]["fast_ms"] = 20.0
    with pytest.raises(IncomparableError, match="arm64"):
        compare(RESULT, other)
    names = [change.name for change in compare(RESULT, other, force=True)]
    assert "edits/right" in names
    assert not [name for name in names if name.endswith(("fast_ms", "tokens_per_s"))]


@pytest.mark.parametrize(
    "other",
    [
        changed(["command"], "benchmarks/scope.py"),
        {**RESULT, "smoke": True},
        {**RESULT, "torch_threads": 1},
        {key: RESULT[key] for key in ("command", "machine", "torch_threads")},
    ],
    ids=["another benchmark", "a smoke run", "other threads", "no figures"],
)
def test_what_says_something_else_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(IncomparableError):
        compare(RESULT, other)


def test_two_results_that_name_no_machine_are_not_of_one() -> None:
    nowhere = {key: value for key, value in RESULT.items() if key != "machine"}
    with pytest.raises(IncomparableError):
        compare(nowhere, nowhere)


def test_nothing_to_something_is_infinitely_worse() -> None:
    assert compare({**RESULT, "failures": []}, {**RESULT, "failures": ["x"]})[-1] == Change(
        "failures", 0.0, 1.0, math.inf
    )


@pytest.mark.parametrize(
    ("new", "code", "said"),
    [
        (RESULT, 0, "0 of 7 figures are more than 10% worse"),
        (changed(["cases", 1, "fast_ms"], 6.0), 1, "1 of 7 figures are more than 10% worse"),
        (changed(["machine"], "other"), 2, ""),
        (changed(["cases"], []), 0, "4 figures of the old file are not in the new one"),
    ],
    ids=["the same", "slower", "another machine", "fewer figures"],
)
def test_the_exit_status(new: dict[str, Any], code: int, said: str, tmp_path: Path) -> None:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, result in zip(paths, (RESULT, new), strict=True):
        path.write_text(json.dumps(result), encoding="utf-8")
    command = [sys.executable, *map(str, (BENCHMARKS / "compare.py", *paths))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stdout


def test_every_committed_result_can_be_compared_with_itself() -> None:
    for file in (BENCHMARKS / "results").glob("*.json"):
        result = json.loads(file.read_text(encoding="utf-8"))
        assert all(change.worse == 0.0 for change in compare(result, result)), file.name
