"""The benchmark of fairness runs: a row waits for steps of the busy engine, and for two at most."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import smoke

pytestmark = pytest.mark.integration


def test_smoke(tmp_path: Path) -> None:
    printed = smoke("fairness.py", tmp_path / "results" / "fairness.json")
    alone, beside = printed["cases"]
    assert (alone["rows_of_the_other"], beside["rows_of_the_other"]) == (0, 32)
    assert alone["steps_waited_max"] == 0
    # In steps, which no machine's speed changes: a turn of each engine after the other.
    assert 0 < beside["steps_waited_max"] <= 2 + 1
    assert beside["steps_waited_p99"] <= 2
    assert all(0 < case["wait_p50_ms"] <= case["wait_p99_ms"] for case in printed["cases"])
