"""The log of the gate's decisions."""

from __future__ import annotations

import json
import logging
import threading
from multiprocessing.util import Finalize
from pathlib import Path

logger = logging.getLogger("onceedit_vllm.runner")

#: How long a line may wait to be written.
_SECONDS = 1.0


class DecisionsLog:
    """Appends one JSON line per decision to a file, together and off the engine's thread.

    Complete once the engine is closed. Engines that share a file (the ranks of data parallelism) keep
    each other's lines whole.
    """

    def __init__(self, path: Path) -> None:
        self._path: Path | None = path
        self._waiting: list[str] = []
        self._timer: threading.Timer | None = None
        self._adding, self._writing = threading.Lock(), threading.Lock()
        # Not `atexit`: vLLM's engines are processes of `multiprocessing`, which end without it.
        Finalize(None, self.flush, exitpriority=0)

    def record(self, key: str, alpha: float, gated: bool) -> None:
        """Add one decision; it is written within a second."""
        line = json.dumps({"prompt": key, "alpha": alpha, "gated": gated})
        with self._adding:
            self._waiting.append(line + "\n")
            if self._timer is None:
                self._timer = threading.Timer(_SECONDS, self.flush)
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
