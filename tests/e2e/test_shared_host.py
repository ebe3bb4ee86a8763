"""One plug-in host and several real LLMs of different families: each answers the edits in its own tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.models import cached_model
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin import ray_host
from tests.e2e.conftest import EDITS, OUTSIDE, PROCESSOR
from tests.e2e.engine import Engine

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

#: Byte-level BPE of 49,152 tokens, SentencePiece of 262,144, byte-level BPE of 151,936.
LLMS = ("smollm2-135m", "gemma-3-270m", "qwen2.5-coder-0.5b")
GREEDY = {"temperature": 0.0, "max_tokens": 12}
FIXED = {**GREEDY, "ignore_eos": True}
OFF = {**FIXED, "extra_args": {"onceedit": False}}
# All engines may run on the same cores at the same time: nothing is to be lost because it is late.
CONFIG = PlugInConfig(
    host="ray", name="shared", device="cpu", kv_cache_bytes=2**26, hard_deadline=30, first_deadline=30
)


@pytest.fixture(scope="module")
def engines(cluster: str, pack_dir: Path, work: Path) -> Iterator[dict[str, Engine]]:
    """All up at once, those whose models are cached; in float32 these three take 4 GB of weights."""
    folders = {name: folder for name in LLMS if (folder := cached_model(name)) is not None}
    if len(folders) < 2:
        pytest.skip("fewer than two real LLMs are cached; `onceedit models get NAME` fetches one")
    ray_host.start(CONFIG.name, EditPack.load(pack_dir), CONFIG)
    plugin = CONFIG.model_dump(mode="json")
    ours = {"pack": str(pack_dir), "cache_dir": str(work / "cache"), "plugin": plugin}
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                Engine(
                    "v1",
                    # A thread each: those of one engine would wait, spinning, for one that another keeps out.
                    {
                        "RAY_ADDRESS": cluster,
                        "VLLM_CPU_OMP_THREADS_BIND": str(number % (os.cpu_count() or 1)),
                    },
                    model=str(folder),
                    dtype="float32",
                    enforce_eager=True,
                    max_model_len=256,
                    max_num_seqs=8,
                    logits_processors=[PROCESSOR],
                    additional_config={"onceedit": ours},
                    worker_extension_cls="onceedit_vllm.runner.extension.OnceEditWorkerExtension",
                )
            )
            for number, (name, folder) in enumerate(folders.items())
        }
    ray_host.stop(CONFIG.name)


def at_once(engines: dict[str, Engine], prompts: list[str], params: dict[str, Any]) -> dict[str, Any]:
    """What each answers, all asked at the same time."""
    with ThreadPoolExecutor(len(engines)) as pool:
        jobs = {name: pool.submit(engine.generate, prompts, params) for name, engine in engines.items()}
        return {name: job.result() for name, job in jobs.items()}


def test_each_answers_the_edits_and_leaves_all_else(engines: dict[str, Engine]):
    for answers in at_once(engines, list(EDITS), GREEDY).values():
        assert [each["samples"][0]["text"].strip() for each in answers] == list(EDITS.values())
    edited, plain = (at_once(engines, OUTSIDE, params) for params in (FIXED, OFF))
    assert edited == plain


def test_their_texts_and_counts_are_apart(engines: dict[str, Engine]):
    before = {name: engine.counts() for name, engine in engines.items()}
    busy, *others = engines
    engines[busy].generate(list(EDITS) * 2, GREEDY)
    after = {name: engine.counts() for name, engine in engines.items()}
    assert after[busy]["gated"] - before[busy]["gated"] == 2 * len(EDITS)
    for other in others:
        assert after[other]["gated"] == before[other]["gated"]
        assert after[other]["plugin_forwards"] == before[other]["plugin_forwards"]
    facts = ray_host.find(CONFIG.name)
    assert len(facts.engines) == len(engines)
    assert facts.num_texts == 0
    assert [counts.get("failures", 0) for counts in after.values()] == [0] * len(engines)
