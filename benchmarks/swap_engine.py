"""The engine of the swap benchmark, in a process of its own, driven by JSON lines.

The engine's core lives in this process, so that every step can be timed.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any

from engine_process import answer_calls

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
EXTENSION = "onceedit_vllm.runner.extension.OnceEditWorkerExtension"


def make(settings: dict[str, Any]) -> Any:
    from onceedit_vllm.runner.offline import PROCESSOR, create_llm

    return create_llm(
        Path(settings["folder"]),
        enable_prefix_caching=False,
        logits_processors=[PROCESSOR],
        additional_config={"onceedit": settings["onceedit"]},
        worker_extension_cls=EXTENSION,
    )


def run(engine: Any, call: dict[str, Any]) -> dict[str, Any]:
    """Serve a stream of requests, so many at a time, and change the pack in the middle of it.

    Returns:
        Of each step the milliseconds since the one before it, by phase: ``before``, ``during`` (from the
        word to load until the pack is active), ``after``; seconds that the change took, requests, and how
        many of them have failed.
    """
    before = tally(engine)
    stream = Stream(engine, call)
    steps: dict[str, list[float]] = {"before": stream.steps(call["steps"])}
    swap = (RaySwap if call["host"] == "ray" else LocalSwap)(engine, call)
    began = time.perf_counter()
    swap.begin()
    steps["during"] = stream.steps_until(swap.is_done)
    seconds = time.perf_counter() - began
    steps["after"] = stream.steps(call["steps"])
    stream.drain()
    after = tally(engine)
    failures = {name: after.get(name, 0) - before.get(name, 0) for name in ("failures", "lost")}
    return {
        "ms": steps,
        "swap_s": seconds,
        "requests": stream.num_ended,
        "failed": stream.num_failed + sum(failures.values()),
        "epoch": after["epoch"],
        "packs": after["packs"],
    }


def tally(engine: Any) -> dict[str, int]:
    counts: dict[str, int] = engine.collective_rpc("onceedit_tally")[0]
    return counts


class Stream:
    """Requests without end; the first answers differ in length, so that they do not end together."""

    def __init__(self, engine: Any, call: dict[str, Any]) -> None:
        self._core, self._call = engine.llm_engine, call
        self._prompts = itertools.cycle(call["prompts"])
        self._numbers = itertools.count()
        self._lengths: dict[str, int] = {}
        self.num_ended = self.num_failed = 0
        for i in range(call["batch"]):
            self._add(1 + (i + 1) * call["max_tokens"] // call["batch"])
        self._last = time.perf_counter()

    def steps(self, number: int) -> list[float]:
        return [self._step() for _ in range(number)]

    def steps_until(self, is_done: Any) -> list[float]:
        taken = [self._step()]
        while not is_done():
            taken.append(self._step())
        return [*taken, self._step()]

    def drain(self) -> None:
        while self._core.has_unfinished_requests():
            self._take(goes_on=False)

    def _step(self) -> float:
        """Milliseconds since the last one: what was done between them counts."""
        self._take(goes_on=True)
        before, self._last = self._last, time.perf_counter()
        return 1000 * (self._last - before)

    def _take(self, *, goes_on: bool) -> None:
        for output in self._core.step():
            if output.finished:
                sample = output.outputs[0]
                self.num_ended += 1
                is_whole = len(sample.token_ids) == self._lengths.pop(output.request_id)
                self.num_failed += not (is_whole and sample.finish_reason == "length")
                if goes_on:
                    self._add(self._call["max_tokens"])

    def _add(self, length: int) -> None:
        from vllm import SamplingParams

        name = f"{id(self)}-{next(self._numbers)}"
        self._lengths[name] = length
        params = SamplingParams(temperature=0.0, min_tokens=length, max_tokens=length)
        self._core.add_request(name, next(self._prompts), params)


class LocalSwap:
    """By ``collective_rpc``, as an operator of one engine does it."""

    def __init__(self, engine: Any, call: dict[str, Any]) -> None:
        self._engine, self._pack = engine, call["pack"]

    def begin(self) -> None:
        self._engine.collective_rpc("onceedit_load", args=(self._pack,))

    def is_done(self) -> bool:
        status = self._engine.collective_rpc("onceedit_status")[0]
        if status["state"] == "failed":
            raise RuntimeError(status["error"])
        if status["state"] != "loaded":
            return False
        self._engine.collective_rpc("onceedit_activate")
        return True


class RaySwap:
    """By a call to the host, as `onceedit host load` makes it."""

    def __init__(self, engine: Any, call: dict[str, Any]) -> None:
        from onceedit_vllm.pack import EditPack

        self._name, self._pack = call["name"], EditPack.load(call["pack"])
        self._thread = threading.Thread(target=self._load)
        self._error: Exception | None = None

    def begin(self) -> None:
        self._thread.start()

    def _load(self) -> None:
        from onceedit_vllm.plugin import ray_host

        try:
            ray_host.load(self._name, self._pack)
        except Exception as error:
            self._error = error

    def is_done(self) -> bool:
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()


if __name__ == "__main__":
    answer_calls(make, run)
