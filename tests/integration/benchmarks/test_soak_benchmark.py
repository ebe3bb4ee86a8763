"""The soak runs on a real engine and a real Ray: two kills, no wrong answer, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import smoke

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("vllm", reason="vLLM is not installed")

pytestmark = pytest.mark.integration


def test_smoke(tmp_path: Path) -> None:
    printed = smoke("soak.py", tmp_path / "results" / "soak.json", 600)
    assert printed["kills"] == 2
    assert printed["finished"] + printed["aborted"] == printed["requests"] == 60
    assert 0 < printed["seconds_until_back"]["median"] <= printed["seconds_until_back"]["max"]
    assert {name: target["reached"] for name, target in printed["targets"].items()} == {
        "wrong_answers": 0,
        "unfinished": 0,
        "leaks": 0,
    }
    outcomes = printed["outcomes"]
    assert outcomes["edited"] > 0
    assert outcomes["identical"] > 0
    assert printed["counts"]["failures"] > 0
    assert printed["counts"]["reconnects"] >= 2
