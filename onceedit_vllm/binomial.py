"""Bounds on a rate of which a count is known (Clopper and Pearson, Biometrika 26, 1934).

Exact: the bound is the rate at which a count at least as far away has the probability 1 - confidence. Here
by bisection over the binomial sum; scipy, which has it, is not needed for anything else.
"""

from __future__ import annotations

import math

#: Halvings of an interval of length one: beyond what a float can tell.
_HALVINGS = 60


def upper_bound(hits: int, n: int, confidence: float = 0.95) -> float:
    """The one-sided upper bound: with this confidence the rate is not higher.

    Args:
        hits: Of `n`, 0 to n.
        n: How often it was looked; with 0 nothing is known and the bound is 1.
        confidence: Between 0 and 1.
    """
    if hits >= n:
        return 1.0
    low, high = hits / n, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_most(hits, n, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def lower_bound(hits: int, n: int, confidence: float = 0.95) -> float:
    """The one-sided lower bound: with this confidence the rate is not lower."""
    return 1.0 - upper_bound(n - hits, n, confidence)


def _at_most(hits: int, n: int, rate: float) -> float:
    """P(X <= hits) for X ~ Binomial(n, rate), 0 < rate < 1; the terms are summed as logarithms."""
    odds, rest = math.log(rate), math.log1p(-rate)
    whole = math.lgamma(n + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * odds + (n - k) * rest)
        for k in range(hits + 1)
    )
