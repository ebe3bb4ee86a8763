"""The benchmark of the plug-in's runtime runs, and its sides agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import smoke

pytestmark = pytest.mark.integration


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "results" / "runtime.json"
    printed = smoke("runtime.py", out)
    assert printed["failures"] == []
    (case,) = printed["decode"]
    assert min(case["ours_ms"], case["transformers_ms"], case["ratio"]) > 0
    # Of 40 tokens seven of eight samples take over two full blocks.
    assert printed["prefix"]["tokens"] == {
        "shared": {"read": 40 + 7 * 8, "reused": 7 * 32}, "alone": {"read": 320, "reused": 0},
    }  # fmt: skip
    assert {len(printed[part]) for part in ("grouping", "growth")} == {1}
