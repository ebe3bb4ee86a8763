"""The sweep of the editing stage's settings: every variant is trained once, and judged like the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.engine import runner_environment
from tests.integration.benchmarks.smoke import BENCHMARKS

pytestmark = pytest.mark.integration


def sweep(work: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "recipe.py"), "--smoke", "--json", "--work", str(work), *more]
    return subprocess.run(
        command, env=runner_environment("v1"), capture_output=True, text=True, timeout=300, check=False
    )


def test_smoke_and_again(tmp_path: Path) -> None:
    done = sweep(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert not found["failures"]
    assert [each["variant"] for each in found["trainings"]] == ["as it is", "epochs=2"]
    for each in found["trainings"]:
        strata = each["strata"]
        assert strata["edit"]["n"] == strata["edit"]["named"] == strata["edit"]["may_ask"] == 4
        assert strata["locality"] | {"named": 0, "may_ask": 0, "right": 4} == strata["locality"]
        assert len(strata["rephrase"]["right_at"]) == len(found["thresholds"])
    assert found["trainings"][1]["training"]["rounds"] == 2
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    again = json.loads(sweep(tmp_path).stdout)
    assert again["trainings"] == found["trainings"]
    assert kept == {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    file = next(iter(kept))
    file.write_text(file.read_text().replace('"min_copies": 5', '"min_copies": 4'))
    other = sweep(tmp_path)
    assert other.returncode == 1
    assert "of another plug-in or other settings" in other.stderr


def test_a_setting_that_is_none_is_refused(tmp_path: Path) -> None:
    done = sweep(tmp_path, "--variant", "min_copy=3")
    assert done.returncode == 2
    assert "--variant 'min_copy=3'" in done.stderr
    assert not any(tmp_path.iterdir())
