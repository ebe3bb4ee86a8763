"""One engine of the serving benchmark, in a process of its own, driven by JSON lines.

The engine's core lives in this process, so that every step can be timed; its workers are processes, as those
of vLLM's server are: on a CPU only they are bound to cores, all but the last, which is left to others.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine_process import answer_calls

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
EXTENSION = "onceedit_vllm.runner.extension.OnceEditWorkerExtension"


def make(settings: dict[str, Any]) -> Any:
    from onceedit_vllm.runner.offline import PROCESSOR, create_llm

    if (size := settings["tensor_parallel_size"]) > 1:
        # On a CPU: a core for each rank. vLLM itself wants a NUMA node for each.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "|".join(map(str, range(size))))
    ours = settings.pop("onceedit")
    if ours is not None:
        settings |= {"logits_processors": [PROCESSOR], "additional_config": {"onceedit": ours}}
        settings |= {"worker_extension_cls": EXTENSION}
    settings |= {"enable_prefix_caching": False, "distributed_executor_backend": "mp"}
    return create_llm(Path(settings.pop("folder")), **settings)


def counted(engine: Any) -> Counter[str]:
    """Everything counted since the start, of all workers together; nothing where there are no edits."""
    is_edited = engine.llm_engine.vllm_config.parallel_config.worker_extension_cls == EXTENSION
    tallies = engine.collective_rpc("onceedit_tally") if is_edited else []
    total: Counter[str] = Counter()
    for tally in tallies:
        total.update(tally)
    return total


def run(engine: Any, call: dict[str, Any]) -> dict[str, Any]:
    """Serve the prompts, so many at a time; every answer has the same number of tokens.

    Returns:
        ``seconds`` from the first request to the last token, ``tokens``, the times to the first token and
        between tokens (ms), what the plug-in did meanwhile, and how long the LLM waited for it.
    """
    before = counted(engine)
    waiting = iter(call["prompts"])
    core, names = engine.llm_engine, itertools.count()
    arrivals: dict[str, list[float]] = {}
    start = time.perf_counter()
    add(core, waiting, call, names, arrivals, call["batch"])
    while core.has_unfinished_requests():
        outputs = core.step()
        now = time.perf_counter()
        ended = 0
        for output in outputs:
            arrivals[output.request_id].append(now)
            ended += output.finished
        add(core, waiting, call, names, arrivals, ended)
    seconds = time.perf_counter() - start
    after = counted(engine)
    gaps = [[b - a for a, b in itertools.pairwise(times)] for times in arrivals.values()]
    return {
        "seconds": seconds,
        "tokens": sum(map(len, gaps)),
        "ttft_ms": [1000 * gap[0] for gap in gaps],
        "itl_ms": [1000 * each for gap in gaps for each in gap[1:]],
        "plugin_forwards": after["plugin_forwards"] - before["plugin_forwards"],
        "plugin_seconds": (after["plugin_us"] - before["plugin_us"]) / 1e6,
        "wait_seconds": (after["wait_us"] - before["wait_us"]) / 1e6,
    }


def add(
    core: Any,
    waiting: Iterator[str],
    call: dict[str, Any],
    names: Iterator[int],
    arrivals: dict[str, list[float]],
    number: int,
) -> None:
    """Send so many of the waiting prompts, if there are as many."""
    from vllm import SamplingParams

    # Not `ignore_eos`: an answer that has ended needs no plug-in. So none may end before its length.
    length = call["max_tokens"]
    params = SamplingParams(temperature=0.0, min_tokens=length, max_tokens=length)
    for prompt in itertools.islice(waiting, number):
        name = f"{os.getpid()}-{next(names)}"
        arrivals[name] = [time.perf_counter()]
        core.add_request(name, prompt, params)


if __name__ == "__main__":
    answer_calls(make, run)
