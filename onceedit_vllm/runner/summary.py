"""A line in vLLM's log that says what became of the requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from weakref import WeakSet

from vllm.logger import init_logger

from onceedit_vllm.runner.metrics import STATES

# Below vLLM's own logger, so that its level and format apply.
logger = init_logger("vllm.onceedit")

_open: WeakSet[Summary] = WeakSet()


def end_summaries() -> None:
    """Write the last lines of engines that live in this process, and forget them: the caller closed them."""
    for summary in list(_open):
        summary.end()


class Summary:
    """Logs the counts every so often while requests are served, and when the engine ends.

    Args:
        tally: The counts since the start, by name; states and times are left out; may wait for the GPU.
        seconds: Shortest time between two lines.
    """

    def __init__(self, tally: Callable[[], dict[str, int]], seconds: float) -> None:
        self._tally = tally
        self._seconds = seconds
        self._due = time.monotonic() + seconds
        self._last: dict[str, int] = {}
        # Not `atexit`: vLLM's engines are processes of `multiprocessing`, which end without it.
        self._at_exit = Finalize(None, self.write, exitpriority=0)
        _open.add(self)

    def tick(self) -> None:
        """Once a step: writes when it is time."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._seconds
            self.write()

    def end(self) -> None:
        """Write the last line now instead of when the process ends."""
        self.write()
        self._at_exit.cancel()
        _open.discard(self)

    def write(self) -> None:
        """Log what is not zero, unless the last line said the same. Never raises."""
        try:
            tally = self._tally().items()
            counts = {name: count for name, count in tally if count and _is_event(name)}
        except Exception as error:
            logger.debug("onceedit: the counts cannot be read: %s", error)
            return
        if counts != self._last:
            self._last = counts
            logger.info("onceedit, since the start: %s", ", ".join(f"{k} {n}" for k, n in counts.items()))


def _is_event(name: str) -> bool:
    """False for states, and for times in microseconds, which are for benchmarks."""
    return name not in STATES and not name.endswith("_us")
