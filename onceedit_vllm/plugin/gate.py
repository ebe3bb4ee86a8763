"""The decision taken on alpha, once per prompt."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Sequence

from cachetools import LRUCache

#: Prompts whose alpha is remembered.
_MEMORY = 65536


def prompt_key(prompt_ids: Sequence[int]) -> str:
    """A short stable name of a prompt.

    No text can be read back from it, but whoever has a prompt can compute its name and find it.
    """
    return hashlib.sha256(array("q", prompt_ids).tobytes()).hexdigest()[:32]


class Gate:
    """Compares alpha with the threshold, and remembers it per prompt.

    Remembering matters twice: a preempted request resumes with the very same decision, and the n
    samples of one prompt cost one look.

    Args:
        threshold: Of prompts that name a subject.
        weight_threshold: Of [WEIGHT] alone; None: the same.
    """

    def __init__(self, threshold: float, weight_threshold: float | None = None) -> None:
        self.threshold = threshold
        self.weight_threshold = threshold if weight_threshold is None else weight_threshold
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
