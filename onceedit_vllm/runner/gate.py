"""The decision taken on alpha, once per prompt."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Sequence
from pathlib import Path

from cachetools import LRUCache

from onceedit_vllm.runner.decisions import DecisionsLog

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

    def __init__(self, threshold: float, decisions_log: Path | None = None) -> None:
        self.threshold = threshold
        self._log = None if decisions_log is None else DecisionsLog(decisions_log)
        self._alphas: LRUCache[str, float] = LRUCache(_MEMORY)

    def is_open(self, alpha: float) -> bool:
        """True when the edits take part. A weight of 0 never opens the gate."""
        return alpha >= self.threshold and alpha > 0.0

    def recall(self, key: str) -> float | None:
        """The alpha decided for this prompt before, if it is still remembered."""
        return self._alphas.get(key)

    def remember(self, key: str, weight_logit: float) -> float:
        """Turn a [WEIGHT] logit into alpha = sigmoid(logit) and keep it. NaN counts as 0."""
        alpha = 0.0 if math.isnan(weight_logit) else _sigmoid(weight_logit)
        self._alphas[key] = alpha
        return alpha

    def record(self, key: str, alpha: float, gated: bool) -> None:
        """Add one decision to the log, where there is one."""
        if self._log is not None:
            self._log.record(key, alpha, gated)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
