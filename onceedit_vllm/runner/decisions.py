"""The log of the gate's decisions."""

from __future__ import annotations

import json
import logging
import threading
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from onceedit_vllm.runner.scope import Verdict

logger = logging.getLogger("onceedit_vllm.runner")

_open: WeakSet[DecisionsLog] = WeakSet()


def flush_decisions() -> None:
    """Write what is waiting in the logs of this process, for an engine that lives in it."""
    for log in list(_open):
        log.flush()


class DecisionsLog:
    """Appends one JSON line per decision to a file, together and off the engine's thread.

    Complete once the engine is closed. Engines that share a file (the ranks of data parallelism) keep
    each other's lines whole.

    Args:
        path: The file; its folder exists.
        seconds: How long a line may wait to be written.
    """

    def __init__(self, path: Path, seconds: float = 1.0) -> None:
        self._path: Path | None = path
        self._seconds = seconds
        self._waiting: list[str] = []
        self._timer: threading.Timer | None = None
        self._adding, self._writing = threading.Lock(), threading.Lock()
        # Not `atexit`: vLLM's engines are processes of `multiprocessing`, which end without it.
        Finalize(None, self.flush, exitpriority=0)
        _open.add(self)

    @property
    def is_writable(self) -> bool:
        """False once the log was dropped."""
        return self._path is not None

    def record(self, key: str, alpha: float | None, gated: bool, scope: Verdict) -> None:
        """Add one decision; alpha is None where the plug-in was not asked."""
        line = json.dumps({"prompt": key, "alpha": alpha, "gated": gated, "scope": scope})
        with self._adding:
            self._waiting.append(line + "\n")
            if self._timer is None:
                self._timer = threading.Timer(self._seconds, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what is waiting. A log that cannot be written is dropped, said once."""
        with self._writing:
            with self._adding:
                lines, self._waiting, self._timer = self._waiting, [], None
            if not lines or self._path is None:
                return
            try:
                # Unbuffered, so that it is one write, which the system appends as a whole.
                with self._path.open("ab", buffering=0) as file:
                    file.write("".join(lines).encode())
            except OSError as error:
                logger.warning(
                    "decisions_log %s cannot be written (%s); no more decisions are logged", self._path, error
                )
                self._path = None
