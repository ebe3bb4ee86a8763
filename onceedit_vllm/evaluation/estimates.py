"""Shares with their 95 % intervals, by the bootstrap over records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onceedit_vllm.evaluation.record import Frozen

#: Resamples; more move the bounds by less than a tenth of a point.
RESAMPLES = 4000
SEED = 0


class Estimate(Frozen):
    """A share and its interval.

    Attributes:
        value: Mean over all questions; None where there was none.
        low: 2.5th percentile of the bootstrap. Where every record says the same it is the value itself, and
            tells nothing about records that were not asked.
        high: 97.5th percentile.
        n: Questions.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def estimate(by_record: Sequence[Sequence[float]]) -> Estimate:
    """The mean over all questions, with whole records drawn anew: questions of one record are no strangers.

    Args:
        by_record: The scores of each record's questions; records without any are left out.
    """
    sums = np.array([sum(scores) for scores in by_record if scores], dtype=np.float64)
    counts = np.array([len(scores) for scores in by_record if scores], dtype=np.float64)
    if not len(counts):
        return Estimate(value=None, low=None, high=None, n=0)
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(len(counts), size=(RESAMPLES, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    rounded = (round(float(number), 4) for number in (sums.sum() / counts.sum(), low, high))
    return Estimate(**dict(zip(("value", "low", "high"), rounded, strict=True)), n=int(counts.sum()))
