"""What other threads want the serving thread of a plug-in host to do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue

from onceedit_vllm.errors import HostError

# Seconds in which the serving thread comes to a job: it may be in a long step.
_PATIENCE = 60.0


class Jobs:
    """A queue of which one thread takes, between two of its own steps."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()
        self._is_over = False

    def ask(self, act: Callable[[], None], seconds: float = _PATIENCE) -> None:
        """Have it done, and wait until it is. What it raises is raised here.

        Raises:
            HostError: Nobody has come to it; nobody will any more.
        """
        done: Future[None] = Future()
        self._waiting.put((act, done))
        if self._is_over:
            self.end()
        try:
            done.result(seconds)
        except TimeoutError as error:
            if not done.cancel():  # it is being done at this moment
                return done.result()
            raise HostError(f"the plug-in host has not come to it in {seconds:.0f} s; try again") from error

    def do_all(self) -> None:
        """Do what waits, on the thread that this is for. Raises nothing."""
        with suppress(Empty):
            while True:
                act, done = self._waiting.get_nowait()
                if not done.set_running_or_notify_cancel():
                    continue
                try:
                    act()
                except Exception as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)

    def end(self) -> None:
        """Do nothing any more; tell those who wait, and who come later."""
        self._is_over = True
        with suppress(Empty):
            while True:
                _, done = self._waiting.get_nowait()
                if done.set_running_or_notify_cancel():
                    done.set_exception(HostError("the plug-in host has ended"))
