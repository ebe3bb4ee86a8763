"""The benchmark of the subjects' search runs, and finds what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import smoke

pytestmark = pytest.mark.integration


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "results" / "scope.json"
    printed = smoke("scope.py", out)
    assert [(case["subjects"], case["text"]) for case in printed["cases"]] == [
        (10, "ascii"), (10, "accented"), (100, "ascii"), (100, "accented"),
    ]  # fmt: skip
    assert {case["missed"] for case in printed["cases"]} == {0}
    assert printed["failures"] == []
