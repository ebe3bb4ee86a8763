"""A short run of a benchmark's script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.engine import runner_environment

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def smoke(script: str, out: Path, seconds: int = 300) -> dict[str, Any]:
    """What it printed, which is what it wrote, with where it was made."""
    command = [sys.executable, str(BENCHMARKS / script), "--smoke", "--json", "--out", str(out)]
    done = subprocess.run(
        command, env=runner_environment("v1"), capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed: dict[str, Any] = json.loads(done.stdout)
    assert printed == json.loads(out.read_text())
    assert {"command", "commit", "machine", "versions"} <= set(printed)
    return printed
