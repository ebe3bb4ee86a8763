"""One engine of the serving benchmark, in a process of its own, driven by JSON lines.

The engine's core lives in this process, so that every step can be timed. vLLM prints to standard output;
the answers go to a file descriptor of their own, the first argument.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def main() -> None:
    replies = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    spent = watch_plugin()
    from onceedit_vllm.runner.offline import PROCESSOR, create_llm

    settings = json.loads(sys.stdin.readline())
    ours = settings.pop("onceedit")
    if ours is not None:
        settings |= {"logits_processors": [PROCESSOR], "additional_config": {"onceedit": ours}}
    engine = create_llm(Path(settings.pop("folder")), enable_prefix_caching=False, **settings)
    print(json.dumps({"ready": True}), file=replies)
    for line in sys.stdin:
        print(json.dumps(run(engine, json.loads(line), spent)), file=replies)


def watch_plugin() -> dict[str, float]:
    """Counts the forward passes of a plug-in in this process, and the seconds they take."""
    from onceedit_vllm.plugin.runtime import PlugInRuntime

    spent = {"plugin_forwards": 0.0, "plugin_seconds": 0.0}
    step = PlugInRuntime.step

    def watched(self: Any, steps: Any) -> Any:
        start = time.perf_counter()
        output = step(self, steps)
        spent["plugin_seconds"] += time.perf_counter() - start
        spent["plugin_forwards"] += 1
        return output

    PlugInRuntime.step = watched  # type: ignore[method-assign]
    return spent


def run(engine: Any, call: dict[str, Any], spent: dict[str, float]) -> dict[str, Any]:
    """Serve the prompts, so many at a time; every answer has the same number of tokens.

    Returns:
        ``seconds`` from the first request to the last token, ``tokens``, the times to the first token and
        between tokens (ms), and what the plug-in did meanwhile.
    """
    before = dict(spent)
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
    gaps = [[b - a for a, b in itertools.pairwise(times)] for times in arrivals.values()]
    return {
        "seconds": seconds,
        "tokens": sum(map(len, gaps)),
        "ttft_ms": [1000 * gap[0] for gap in gaps],
        "itl_ms": [1000 * each for gap in gaps for each in gap[1:]],
        **{name: spent[name] - before[name] for name in spent},
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
    main()
