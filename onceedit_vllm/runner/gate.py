"""The decision taken on alpha, once per prompt."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cachetools import LRUCache

from onceedit_vllm.runner.decisions import DecisionsLog

if TYPE_CHECKING:
    from onceedit_vllm.runner.scope import Verdict

#: Prompts whose alpha is remembered.
_MEMORY = 65536


def prompt_key(prompt_ids: Sequence[int]) -> str:
    """A short stable name of a prompt.

    No text can be read back from it, but whoever has a prompt can compute its name and find it.
    """
    return hashlib.sha256(array("q", prompt_ids).tobytes()).hexdigest()[:32]


class Gate:
    """Compares alpha with the threshold, remembers it per prompt, and keeps the decisions log.

    Remembering matters twice: a preempted request resumes with the very same decision, and the n
    samples of one prompt cost one look.
    """

    def __init__(
        self, threshold: float, decisions_log: Path | None = None, *, weight_threshold: float | None = None
    ) -> None:
        """Keep the thresholds: of prompts that name a subject, and of [WEIGHT] alone (None: the same)."""
        self.threshold = threshold
        self.weight_threshold = threshold if weight_threshold is None else weight_threshold
        self._log = None if decisions_log is None else DecisionsLog(decisions_log)
        self._alphas: LRUCache[str, float] = LRUCache(_MEMORY)

    def is_open(self, alpha: float, *, named: bool = True) -> bool:
        """True when the edits take part. A weight of 0 never opens the gate.

        Args:
            alpha: The plug-in's.
            named: The prompt names a subject; otherwise [WEIGHT] decides alone.
        """
        return alpha >= (self.threshold if named else self.weight_threshold) and alpha > 0.0

    def recall(self, key: str) -> float | None:
        """The alpha decided for this prompt before, if it is still remembered."""
        return self._alphas.get(key)

    def remember(self, key: str, alpha: float) -> None:
        """Keep what the plug-in said for this prompt. NaN counts as 0."""
        self._alphas[key] = 0.0 if math.isnan(alpha) else alpha

    @property
    def is_logging(self) -> bool:
        """True while decisions are written down: without a log nobody needs a prompt's name for it."""
        return self._log is not None and self._log.is_writable

    def record(self, key: str, alpha: float | None, gated: bool, scope: Verdict) -> None:
        """Add one decision to the log, where there is one."""
        if self._log is not None:
            self._log.record(key, alpha, gated, scope)
