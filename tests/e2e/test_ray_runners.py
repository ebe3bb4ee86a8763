"""Engines beside a Ray host that are no plain `LLM` on V1: the asynchronous one, and the V2 runner."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin import ray_host
from tests.e2e.conftest import ASIDE, DOUBTS, EDITS, OUTSIDE, PROCESSOR
from tests.e2e.engine import Engine

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

GREEDY = {"temperature": 0.0, "max_tokens": 12}
FIXED = {**GREEDY, "ignore_eos": True}
OFF = {**FIXED, "extra_args": {"onceedit": False}}
#: Of the machine's second core; tried again soon after it has died.
CONFIG = PlugInConfig(host="ray", cpus=(1,), device="cpu", retry_seconds=1.0, kv_cache_bytes=2**26)


def texts(outputs: list[dict[str, Any]]) -> list[str]:
    return [output["samples"][0]["text"].strip() for output in outputs]


@pytest.fixture(scope="module", params=["asynchronous", "v2"])
def engine(
    request: pytest.FixtureRequest, cluster: str, tight_args: dict[str, Any], pack_dir: Path, work: Path
) -> Iterator[Engine]:
    """Its host bears the name of its kind."""
    config = CONFIG.model_copy(update={"name": request.param})
    ray_host.start(config.name, EditPack.load(pack_dir), config)
    plugin = config.model_dump(mode="json")
    ours = {"pack": str(pack_dir), "cache_dir": str(work / "cache"), "plugin": plugin}
    with Engine(
        "v2" if config.name == "v2" else "v1",
        {"RAY_ADDRESS": cluster},
        is_async=config.name != "v2",
        **tight_args,
        logits_processors=[PROCESSOR],
        additional_config={"onceedit": ours},
        worker_extension_cls="onceedit_vllm.runner.extension.OnceEditWorkerExtension",
    ) as engine:
        yield engine
    # The engine has said goodbye, or has been missed.
    until = time.monotonic() + 60
    while ray_host.find(config.name).engines:
        assert time.monotonic() < until
        time.sleep(0.2)
    ray_host.stop(config.name)


@pytest.fixture
def host(request: pytest.FixtureRequest, engine: Engine) -> str:
    return "v2" if engine.runner == "v2" else "asynchronous"


def test_edits_are_answered_and_all_else_is_token_identical(engine: Engine, host: str):
    assert texts(engine.generate(list(EDITS), GREEDY)) == list(EDITS.values())
    untouched = [*ASIDE, *DOUBTS, *OUTSIDE]
    assert engine.generate(untouched, FIXED) == engine.generate(untouched, OFF)
    counts = engine.counts()
    assert counts["bytes_in"] > 0
    assert (counts.get("failures", 0), counts["out_of_scope"]) == (0, len(DOUBTS) + len(OUTSIDE))
    assert len(ray_host.find(host).engines) == 1


def test_requests_that_want_the_distribution_get_it(engine: Engine):
    for fields in ({"logprobs": 2}, {"presence_penalty": 0.1}):
        assert texts(engine.generate(list(EDITS), {**GREEDY, **fields})) == list(EDITS.values())


def test_a_request_that_is_given_up_leaves_the_others_alone(engine: Engine, host: str):
    prompts = list(EDITS)
    answers = engine.abort(prompts, GREEDY, which=1, after_steps=2)
    assert answers[1] == {"aborted": True}
    assert texts([answers[0], answers[2]]) == [EDITS[prompts[0]], EDITS[prompts[2]]]
    assert texts(engine.generate(prompts, GREEDY)) == list(EDITS.values())
    until = time.monotonic() + 30
    while ray_host.find(host).num_texts:
        assert time.monotonic() < until
        # V2 does not say that a request has ended: it is noticed after a few steps without it.
        engine.generate(OUTSIDE[:1], FIXED)


def test_a_plugin_that_is_killed_costs_no_request(engine: Engine, host: str):
    pid = ray_host.find(host).pid
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    prompts = [*EDITS, *OUTSIDE] * 6
    outputs = engine.generate(prompts, GREEDY)
    killer.join()
    assert len(outputs) == len(prompts)
    assert {output["samples"][0]["finish_reason"] for output in outputs} <= {"stop", "length"}
    until = time.monotonic() + 120
    while texts(engine.generate(list(EDITS), GREEDY)) != list(EDITS.values()):
        assert time.monotonic() < until
        time.sleep(1)
    assert ray_host.find(host).pid != pid
