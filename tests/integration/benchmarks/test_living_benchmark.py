"""The benchmark of packs that go on living: every step is there, and a second run goes on from its packs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.benchmarks.smoke import BENCHMARKS

pytestmark = pytest.mark.integration


def run(work: Path) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / "living.py"), "--smoke", "--json", "--work", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_smoke(tmp_path: Path) -> None:
    first = run(tmp_path)["steps"]
    assert [(s["edits"], s["added"], s["removed"]) for s in first] == [(2, 2, 0), (4, 2, 0), (3, 0, 1)]
    for step, edits in zip(first, (2, 4, 3), strict=True):
        counts = {kind: total for kind, (_, total) in step["right_of"].items()}
        assert counts["edits"] == counts["rephrases"] == edits
        assert counts["untouched"] == 4
        assert step["right_of"]["untouched"] == [4, 4]  # they name no subject: never read
    assert first[2]["right_of"]["removed"] == [1, 1]
    again = run(tmp_path)["steps"]
    assert [{**s, "check_s": 0} for s in again] == [{**s, "check_s": 0} for s in first]
