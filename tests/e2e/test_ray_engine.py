"""An engine whose plug-in runs in an actor of Ray: the same answers, and a plug-in that dies costs none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ASIDE, EDITS, OTHER_TARGET, OUTSIDE, PROCESSOR
from tests.e2e.engine import Engine

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [
    pytest.mark.alone,
    pytest.mark.e2e,
    pytest.mark.parametrize("runner", ["v1"], indirect=True, scope="session"),
]

GREEDY = {"temperature": 0.0, "max_tokens": 12}
FIXED = {**GREEDY, "ignore_eos": True}
#: Gone for long enough that the restart falls into it, and tried again soon.
PLUGIN: dict[str, Any] = {"host": "ray", "name": "e2e", "cpus": [1], "device": "cpu", "retry_seconds": 1.0}


@pytest.fixture(scope="session")
def shared(runner: str, tight_args: dict[str, Any], pack_dir: Path, work: Path) -> Iterator[Engine]:
    """It finds no cluster of Ray, and starts its own."""
    ours = {"pack": str(pack_dir), "cache_dir": str(work / "cache"), "plugin": PLUGIN}
    with Engine(
        runner,
        **tight_args,
        logits_processors=[PROCESSOR],
        additional_config={"onceedit": ours},
        worker_extension_cls="onceedit_vllm.runner.extension.OnceEditWorkerExtension",
    ) as engine:
        yield engine


def texts(outputs: list[dict[str, Any]]) -> list[str]:
    return [output["samples"][0]["text"].strip() for output in outputs]


def command(*arguments: str) -> Any:
    """What `onceedit host` gives as JSON."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from onceedit_vllm.cli.main import app; app()",
            "host",
            *arguments,
            "--json",
            "-",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(done.stdout)


def host() -> dict[str, Any]:
    """What `onceedit host list` says of the engine's host."""
    (found,) = [one for one in command("list") if one["name"] == PLUGIN["name"]]
    return found


def test_edits_are_answered_and_all_else_is_token_identical(shared: Engine, plain: Engine):
    assert texts(shared.generate(list(EDITS), GREEDY)) == list(EDITS.values())
    untouched = [*ASIDE, *OUTSIDE]
    params = {**FIXED, "logprobs": 3}
    assert shared.generate(untouched, params) == plain.generate(untouched, params)
    counts = shared.counts()
    assert counts["plugin_forwards"] > 0
    assert counts["bytes_in"] > 0
    assert counts.get("failures", 0) == 0
    assert counts["texts"] == 0


def test_the_same_with_whole_lists(shared: Engine):
    """Of requests in which a cut list would show."""
    for fields in ({"logprobs": 2}, {"presence_penalty": 0.1}, {"logit_bias": {"5": -1.0}}):
        assert texts(shared.generate(list(EDITS), {**GREEDY, **fields})) == list(EDITS.values())


def test_it_says_that_its_cluster_ends_with_it(shared: Engine):
    assert "this engine has started one, which ends with it" in shared.log()


def test_the_command_lists_it(shared: Engine, pack_dir: Path):
    found = host()
    assert (found["pack"], found["num_edits"], found["failure"]) == (str(pack_dir), len(EDITS), "")
    assert len(found["engines"]) == 1


def test_another_pack_while_requests_are_under_way(
    shared: Engine, plain: Engine, pack_dir: Path, other_pack_dir: Path
):
    """Waves of requests until the pack is another one; in none of them does anything fail."""
    (prompt, target), outside, before = next(iter(EDITS.items())), OUTSIDE[0], shared.counts()
    prompts, params = [prompt, outside] * 12, [GREEDY, FIXED] * 12
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(command, "load", str(other_pack_dir), "--name", PLUGIN["name"])
        waves = [shared.generate(prompts, params)]
        while not loaded.done():
            waves.append(shared.generate(prompts, params))
        waves.append(shared.generate(prompts, params))
    assert loaded.result()["pack"] == str(other_pack_dir)
    answered = [text for wave in waves for text in texts(wave)[::2]]
    # An answer is of the one pack or of the other, whole, and there is no way back.
    assert answered == sorted(answered, key=[target, OTHER_TARGET].index)
    assert (answered[0], answered[-1]) == (target, OTHER_TARGET)
    (expected,) = plain.generate([outside], FIXED)
    untouched = [output["samples"] for wave in waves for output in wave[1::2]]
    assert untouched == [expected["samples"]] * len(untouched)
    counts = shared.counts()
    for name in ("failures", "breaker_open", "reconnects", "lost"):
        assert counts.get(name, 0) == before.get(name, 0)
    assert (counts["texts"], counts["packs"]) == (0, 1)
    # A subject that only the first pack knows is not looked for any more.
    other = list(EDITS)[1]
    assert shared.generate([other], FIXED) == plain.generate([other], FIXED)
    assert command("rollback", "--name", PLUGIN["name"])["pack"] == str(pack_dir)
    assert texts(shared.generate(list(EDITS), GREEDY)) == list(EDITS.values())


def test_a_plugin_that_is_killed_while_it_answers_costs_no_request(shared: Engine):
    before, pid = shared.counts(), host()["pid"]
    prompts = list(EDITS) * 40
    killer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
    killer.start()
    outputs = shared.generate(prompts, GREEDY)
    killer.join()
    assert len(outputs) == len(prompts)
    assert {output["samples"][0]["finish_reason"] for output in outputs} <= {"stop", "length"}
    after = shared.counts()
    assert after["failures"] > before.get("failures", 0)
    assert after["breaker_openings"] > before["breaker_openings"]
    until = time.monotonic() + 120
    while texts(shared.generate(list(EDITS), GREEDY)) != list(EDITS.values()):
        assert time.monotonic() < until
        time.sleep(1)
    recovered = shared.counts()
    assert recovered["reconnects"] > before.get("reconnects", 0)
    assert recovered["texts"] == 0
    assert host()["pid"] != pid
