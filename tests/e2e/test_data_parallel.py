"""Two replicas of the LLM behind one front end: each with a plug-in of its own, or both with one on Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin import ray_host
from tests.e2e.conftest import EDITS, OUTSIDE, PROCESSOR
from tests.e2e.engine import Engine, EngineError

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

GREEDY = {"temperature": 0.0, "max_tokens": 12}
FIXED = {**GREEDY, "ignore_eos": True}
OFF = {**FIXED, "extra_args": {"onceedit": False}}


@pytest.fixture(scope="module", params=["local", "ray"])
def replicas(
    request: pytest.FixtureRequest, cluster: str, tight_args: dict[str, Any], pack_dir: Path, work: Path
) -> Iterator[Engine]:
    plugin = PlugInConfig(host=request.param, name="replicas", device="cpu", kv_cache_bytes=2**26)
    ours = {
        "pack": str(pack_dir),
        "cache_dir": str(work / "cache"),
        "plugin": plugin.model_dump(mode="json"),
    }
    if plugin.host == "ray":
        ray_host.start(plugin.name, EditPack.load(pack_dir), plugin)
    with Engine(
        "v1",
        {"RAY_ADDRESS": cluster, "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        is_async=True,
        **tight_args,
        data_parallel_size=2,
        logits_processors=[PROCESSOR],
        additional_config={"onceedit": ours},
    ) as engine:
        yield engine
    if plugin.host == "ray":
        ray_host.stop(plugin.name)


def test_both_replicas_know_the_edits_and_leave_all_else(replicas: Engine, request: pytest.FixtureRequest):
    for rank in (0, 1):
        prompts = list(EDITS)
        answers = replicas.generate_on(prompts, GREEDY, [rank] * len(prompts))
        assert [each["samples"][0]["text"].strip() for each in answers] == list(EDITS.values())
        on_rank = [rank] * len(OUTSIDE)
        edited, plain = (replicas.generate_on(OUTSIDE, params, on_rank) for params in (FIXED, OFF))
        assert edited == plain
    if "ray" in request.node.name:
        engines = ray_host.find("replicas").engines
        assert len(engines) == 2
        assert all(engine["plugin_forwards"] > 0 for engine in engines)


def test_the_offline_engine_has_none(tight_args: dict[str, Any]):
    """VLLM itself refuses; should that change, it is to be tested with edits."""
    with pytest.raises(EngineError, match="not supported for single-process"):
        Engine("v1", **tight_args, data_parallel_size=2)
