"""Takes numbers on the engine's thread, where it costs next to nothing, and shows them from another."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from onceedit_vllm.runner.callers import is_warming_up
from onceedit_vllm.runner.metrics import MEASURES, Measure

if TYPE_CHECKING:
    from onceedit_vllm.runner.metrics import EngineMetrics

logger = logging.getLogger("onceedit_vllm.runner")

Tally = Callable[[], Mapping[str, int]]

#: Values of one kind that may wait to be shown; the oldest are dropped.
_MOST_WAITING = 16384
#: Seconds between two looks of the thread. An engine that made no step for as long is idle.
_PACE = 1.0


class Meter:
    """Measures one engine. Nothing here raises.

    A tally may wait for the GPU, and reading it from another thread would break a CUDA graph that is being
    captured. So it is read on the engine's thread, every so often, and on the other one only while the
    engine is idle.

    Args:
        shown: Where the numbers go.
        seconds: Shortest time between two readings of the tally while the engine is busy.
    """

    def __init__(self, shown: EngineMetrics, seconds: float = 5.0) -> None:
        self._shown = shown
        self._seconds = seconds
        self._tally: Tally = dict
        self._waiting: dict[str, deque[float]] = {name: deque(maxlen=_MOST_WAITING) for name in MEASURES}
        self._counts: Mapping[str, int] = {}
        self._due = 0.0
        self._last_step = self._last_read = time.monotonic()
        self._thread: threading.Thread | None = None

    def follow(self, tally: Tally) -> None:
        """Read the counts and states of an engine from here on."""
        self._tally = tally

    def observe(self, name: Measure, value: float) -> None:
        """Keep a value until it is shown: an append, safe from any thread."""
        self._waiting[name].append(value)

    def tick(self) -> None:
        """Once a step of the engine, on its thread."""
        self._last_step = now = time.monotonic()
        if self._thread is None:
            # Graphs are captured then, and nothing that is measured is real.
            if is_warming_up():
                self._forget()
                return
            self._start()
        if now >= self._due:
            self._due = now + self._seconds
            self._read(now)

    def show(self) -> None:
        """Give what was taken to prometheus; reads the tally first where the engine is idle."""
        now = time.monotonic()
        if now - self._last_step >= _PACE and self._last_step >= self._last_read:
            self._read(now)
        try:
            self._shown.show_tally(self._counts)
            for name in MEASURES:
                if values := _taken(self._waiting[name]):
                    self._shown.show_values(name, values)
        except Exception as error:
            logger.debug("onceedit: the metrics cannot be shown: %s", error)

    def _read(self, now: float) -> None:
        self._last_read = now
        try:
            self._counts = self._tally()
        except Exception as error:
            logger.debug("onceedit: the counts cannot be read: %s", error)

    def _forget(self) -> None:
        for waiting in self._waiting.values():
            waiting.clear()

    def _start(self) -> None:
        self._thread = threading.Thread(
            target=_show_forever, args=(weakref.ref(self),), name="onceedit-meter", daemon=True
        )
        self._thread.start()


def _taken(waiting: deque[float]) -> list[float]:
    """What has been waiting, and waits no longer."""
    return [waiting.popleft() for _ in range(len(waiting))]


def _show_forever(meter: weakref.ref[Meter]) -> None:
    """Show what a meter takes, until it is gone: an engine in this process may be, and its memory with it."""
    while True:
        time.sleep(_PACE)
        alive = meter()
        if alive is None:
            return
        alive.show()
        del alive
