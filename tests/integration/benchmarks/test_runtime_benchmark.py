"""The benchmark of the plug-in's runtime runs, and its sides agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "runtime.py"


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "results" / "runtime.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--json", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)
    assert printed == json.loads(out.read_text())
    assert {"command", "commit", "machine", "versions"} <= set(printed)
    assert printed["failures"] == []
    (case,) = printed["decode"]
    assert min(case["ours_ms"], case["transformers_ms"], case["ratio"]) > 0
    # Of 40 tokens seven of eight samples take over two full blocks.
    assert printed["prefix"]["tokens"] == {
        "shared": {"read": 40 + 7 * 8, "reused": 7 * 32}, "alone": {"read": 320, "reused": 0},
    }  # fmt: skip
    assert {len(printed[part]) for part in ("grouping", "growth")} == {1}
