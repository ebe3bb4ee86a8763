"""The benchmark of the subjects' search runs, and finds what it looks for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "scope.py"


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "results" / "scope.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--json", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)
    assert printed == json.loads(out.read_text())
    assert {"command", "commit", "machine", "versions"} <= set(printed)
    assert [(case["subjects"], case["text"]) for case in printed["cases"]] == [
        (10, "ascii"), (10, "accented"), (100, "ascii"), (100, "accented"),
    ]  # fmt: skip
    assert {case["missed"] for case in printed["cases"]} == {0}
    assert printed["failures"] == []
