"""Ranks as threads of one process, and what they tell each other in queues of Python's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


class Threads:
    """What the channels of all ranks share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.given: list[bytes] = [b""] * size
        pairs = [(0, rank) for rank in range(1, size)] + [(rank, 0) for rank in range(1, size)]
        self.queues: dict[tuple[int, int], queue.Queue[bytes]] = {pair: queue.Queue(64) for pair in pairs}


class ThreadChannel:
    """One rank's end of :class:`Threads`."""

    def __init__(self, threads: Threads, rank: int) -> None:
        self._threads = threads
        self.rank, self.size = rank, threads.size

    def exchange(self, payload: bytes) -> list[bytes]:
        self._threads.given[self.rank] = payload
        self._threads.barrier.wait(10)
        given = list(self._threads.given)
        self._threads.barrier.wait(10)
        return given

    def tell(self, payload: bytes, seconds: float) -> None:
        for (writer, _), waiting in self._threads.queues.items():
            if writer == self.rank:
                try:
                    waiting.put(payload, timeout=seconds)
                except queue.Full:
                    raise TimeoutError from None

    def hear(self, writer: int, seconds: float) -> bytes:
        try:
            return self._threads.queues[writer, self.rank].get(timeout=max(seconds, 1e-9))
        except queue.Empty:
            raise TimeoutError from None


def channels(size: int) -> list[ThreadChannel]:
    """A channel for each rank."""
    threads = Threads(size)
    return [ThreadChannel(threads, rank) for rank in range(size)]


def together(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """What every rank's call returns; all run at once. The first error is raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [done.result(30) for done in [pool.submit(call) for call in calls]]
