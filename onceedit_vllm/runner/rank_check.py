"""Whether all ranks have the same logits, for tests."""

from __future__ import annotations

import logging
from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from onceedit_vllm.runner.rank_channel import Channel

logger = logging.getLogger("onceedit_vllm.runner")


class Comparison:
    """Compares the logits of all ranks, bit by bit.

    Args:
        channel: To the others.

    Attributes:
        counts: ``ranks_compared``, steps, and ``ranks_differed``, those in which not all were the same.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.counts: Counter[str] = Counter(ranks_compared=0, ranks_differed=0)

    def compare(self, logits: torch.Tensor) -> None:
        """All ranks call it. A difference is counted and said, never raised."""
        try:
            content = logits.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            digests = self._channel.exchange(sha256(content).digest())
        except Exception as error:
            logger.warning("onceedit: the ranks' logits cannot be compared: %s", error)
            return
        self.counts["ranks_compared"] += 1
        if len(set(digests)) > 1:
            self.counts["ranks_differed"] += 1
            logger.warning("onceedit: the ranks' logits differ in a step of shape %s", tuple(logits.shape))
