"""The serving benchmark runs real engines, and says where the plug-in took part."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import smoke

pytestmark = pytest.mark.integration

FIELDS = {
    "llm", "tensor_parallel", "host", "in_scope", "batch", "tokens_per_s", "ratio_to_plain", "ratio_low",
    "floor_ratio", "ratio_to_floor", "ttft_ms", "itl_p50_ms", "itl_p99_ms", "itl_p99_to_floor",
    "plugin_forwards", "plugin_seconds", "wait_seconds",
}  # fmt: skip


def test_smoke(tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    out = tmp_path / "results" / "serving.json"
    printed = smoke("serving.py", out, 600)
    assert out.with_suffix(".png").stat().st_size > 1000
    cases = {(case["host"], case["in_scope"]): case for case in printed["cases"]}
    assert list(cases) == [("plain", 0.0), ("local", 0.0), ("plain", 1.0), ("local", 1.0)]
    for case in cases.values():
        assert set(case) == FIELDS
        assert 0 < case["itl_p50_ms"] <= case["itl_p99_ms"]
    assert [case["plugin_forwards"] > 0 for case in cases.values()] == [False, False, False, True]
    assert cases["plain", 1.0]["ratio_to_plain"] == 1.0
