"""The swap benchmark runs a real engine on both hosts, and nothing fails in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import smoke

pytestmark = pytest.mark.integration


def test_smoke(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    pytest.importorskip("ray", reason="Ray is not installed")
    printed = smoke("swap.py", tmp_path / "results" / "swap.json", 600)
    assert [case["host"] for case in printed["cases"]] == ["local", "ray"]
    for case in printed["cases"]:
        assert (case["failed_requests"], case["epoch"], case["packs_in_memory"]) == (0, 2, 1)
        assert case["requests"] > 2
        assert case["steps_before"] == case["steps_after"] == 10
        assert 0 < case["median_ms_during"] <= case["longest_ms_during"]
        assert case["longest_stall_steps"] > 0
    assert printed["targets"]["failed_requests"] == {"wanted": 0, "reached": 0}
