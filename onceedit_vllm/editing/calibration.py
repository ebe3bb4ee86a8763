"""The gate's thresholds, from generated texts that training never saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from onceedit_vllm.editing.probe import Reading
from onceedit_vllm.evidence import sigmoid

#: With a subject named, few prompts are wrong and a missed edit is the likelier harm; without, alpha alone
#: must keep all other traffic out. Above the highest, noise decides.
LOWEST_WITH_SUBJECT, LOWEST_ALONE, HIGHEST = 0.1, 0.5, 0.95
#: Judged, not fitted, on one set of 14 development facts. Evidence for people's wordings lay 2.4 log-odds
#: below that for generated ones in the median of one training, 1.3 in the lowest tenth. Of other questions
#: about the subject people's opened less often than generated ones in three of four trainings, more often
#: in one.
EASIER, HARDER = 2.0, 1 / 3


class Calibration(NamedTuple):
    """A threshold and how it came about."""

    threshold: float
    true_positive_rate: float
    false_positive_rate: float
    reason: str


class Thresholds(NamedTuple):
    """The gate's two thresholds.

    Attributes:
        with_subject: For prompts that name an edit's subject.
        alone: For all prompts, where alpha alone decides.
    """

    with_subject: Calibration
    alone: Calibration


def calibrate(
    positives: Sequence[Reading], same_subject: Sequence[Reading], others: Sequence[Reading]
) -> Thresholds:
    """Choose both thresholds between what is said for held-out positives and for negatives.

    With a subject named that is the evidence, without one alpha.

    Args:
        positives: Texts that ask for an edit; at least one.
        same_subject: Texts that name its subject and ask for something else.
        others: Texts that do not name it.
    """
    asked, named = [r.evidence for r in positives], [r.evidence for r in same_subject]
    alone = [r.alpha for r in (*same_subject, *others)]
    return Thresholds(
        _cut(asked, named, LOWEST_WITH_SUBJECT, HARDER, EASIER),
        _cut([r.alpha for r in positives], alone, LOWEST_ALONE, 3.0),
    )


def _cut(
    positives: Sequence[float],
    negatives: Sequence[float],
    lowest: float,
    weight: float,
    easier: float = 0.0,
) -> Calibration:
    """The cut of least cost; among equal costs the middle of the widest range wins.

    Every cut between two neighbouring alphas is a candidate. A false opening counts `weight` times a
    missed one, and positives are expected to lie `easier` below what was measured; the rates that are
    reported are those measured.
    """
    expected = [_lowered(alpha, easier) for alpha in positives]
    inside = (alpha for alpha in (*expected, *negatives) if lowest < alpha < HIGHEST)
    points = sorted({lowest, HIGHEST, *inside})
    cuts = [(low + high) / 2 for low, high in pairwise(points)]
    widths = [high - low for low, high in pairwise(points)]

    def cost(cut: float) -> float:
        return 1 - _share(expected, cut) + weight * _share(negatives, cut)

    best = min(range(len(cuts)), key=lambda at: (round(cost(cuts[at]), 9), -widths[at]))
    threshold = round(cuts[best], 4)
    found, opened = _share(positives, threshold), _share(negatives, threshold)
    reason = (
        f"least cost (a false opening counts {weight:.2g} times) on {len(positives)} held-out wordings of "
        f"the edits and {len(negatives)} held-out prompts outside them: opens on {found:.1%} and {opened:.1%}"
    )
    return Calibration(threshold, found, opened, reason)


def _share(alphas: Sequence[float], cut: float) -> float:
    return sum(alpha >= cut for alpha in alphas) / max(1, len(alphas))


def _lowered(alpha: float, by: float) -> float:
    """The same, so much log-odds lower."""
    if alpha in (0.0, 1.0):
        return alpha
    return sigmoid(math.log(alpha) - math.log1p(-alpha) - by)
