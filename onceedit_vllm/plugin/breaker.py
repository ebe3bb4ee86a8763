"""Leaves alone for a while what has failed several times in a row."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Open after so many failures in a row; closed again after a while, for one more try.

    A try that fails opens it for twice as long as before, one that succeeds makes it forget.

    Args:
        seconds: How long it is open at first.
        longest: And at most.
        failures: In a row, that open it.
        clock: Seconds, monotonic.

    Attributes:
        num_opened: How often it has opened.
    """

    def __init__(
        self,
        seconds: float,
        longest: float,
        failures: int = 3,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._longest = seconds, longest
        self._failures, self._clock = failures, clock
        self._num_failed = 0
        self._seconds = seconds
        self._until = clock()
        self.num_opened = 0

    @property
    def is_open(self) -> bool:
        """True while nothing is to be tried."""
        return self._clock() < self._until

    def failed(self) -> None:
        """Count a failure."""
        self._num_failed += 1
        if self._num_failed < self._failures:
            return
        self.num_opened += 1
        self._until = self._clock() + self._seconds
        self._seconds = min(2 * self._seconds, self._longest)

    def succeeded(self) -> None:
        """Forget the failures."""
        self._num_failed = 0
        self._seconds = self._first
