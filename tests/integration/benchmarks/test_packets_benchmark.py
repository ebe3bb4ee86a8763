"""The benchmark of the packets' way runs, and measures both ways."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "packets.py"


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "results" / "packets.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--json", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)
    assert printed == json.loads(out.read_text())
    assert {"command", "commit", "machine", "versions"} <= set(printed)
    assert [(case["rows"], case["way"]) for case in printed["cases"]] == [
        (rows, way) for rows in (1, 8, 32) for way in ("ray call", "socket")
    ]
    assert all(0 < case["p50_ms"] <= case["p99_ms"] for case in printed["cases"])
