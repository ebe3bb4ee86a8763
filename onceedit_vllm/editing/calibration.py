"""The gate's threshold, from generated texts that training never saw."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

#: Below it, alpha would not give the plug-in the larger share of Eq. 8; above, noise decides.
LOWEST, HIGHEST = 0.5, 0.95


class Calibration(NamedTuple):
    """A threshold and how it came about."""

    threshold: float
    true_positive_rate: float
    false_positive_rate: float
    reason: str


def calibrate(positives: Sequence[float], negatives: Sequence[float]) -> Calibration:
    """Choose the gate's threshold between the alphas of held-out positives and negatives.

    Every cut between two neighbouring alphas is a candidate. A false opening costs three times a
    missed one, because it changes an answer that was to stay untouched; among equal costs the
    middle of the widest range wins, and it is kept within `LOWEST` and `HIGHEST`.

    Args:
        positives: Alphas of texts that ask for an edit; at least one.
        negatives: Alphas of texts that do not.
    """
    points = sorted({LOWEST, HIGHEST, *(a for a in (*positives, *negatives) if LOWEST < a < HIGHEST)})
    cuts = [(low + high) / 2 for low, high in pairwise(points)]
    widths = [high - low for low, high in pairwise(points)]

    def cost(cut: float) -> float:
        missed = sum(alpha < cut for alpha in positives) / len(positives)
        opened = sum(alpha >= cut for alpha in negatives) / max(1, len(negatives))
        return missed + 3 * opened

    best = min(range(len(cuts)), key=lambda at: (round(cost(cuts[at]), 9), -widths[at]))
    threshold = round(cuts[best], 4)
    true_rate = sum(alpha >= threshold for alpha in positives) / len(positives)
    false_rate = sum(alpha >= threshold for alpha in negatives) / max(1, len(negatives))
    reason = (
        f"least cost (a false opening counts three times) on {len(positives)} held-out wordings of the edits "
        f"and {len(negatives)} held-out prompts outside them: opens on {true_rate:.1%} and {false_rate:.1%}"
    )
    return Calibration(threshold, true_rate, false_rate, reason)
