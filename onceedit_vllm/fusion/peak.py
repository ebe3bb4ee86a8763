"""Finding the largest coordinate of the fused distribution without computing the distribution.

P is a weighted sum of rows of two relative maps. A few tokens hold most of the weight, and of each row
the largest entries are known (:class:`~onceedit_vllm.alignment.dense.DenseMap`), so that every coordinate
of P can be bounded from both sides. Where one coordinate's lower bound beats all other upper bounds the
peak is certain. Four attempts, each for the rows that the one before left open:

1. *lists*: only coordinates among the largest of the heaviest tokens' rows; O(V) and no more;
2. *rows*: whole rows of more and more of the heaviest tokens, which bound every coordinate;
3. *finalists*: the few coordinates that the bounds cannot tell apart, computed in full;
4. *dense*: the whole product, in chunks.

Nothing is guessed: a margin for float32 rounding is part of every comparison.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.alignment.largest import top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from onceedit_vllm.alignment.dense import DenseMap
    from onceedit_vllm.fusion.lines import MapLines

#: Heaviest tokens of each side whose rows are taken, step by step.
ROW_STEPS = (64, 256, 1024)
#: At most so many coordinates are computed in full; with more left, the next step is the better deal.
MOST_FINALISTS = 64
# Rounding of the entries of R and of short sums, relative; float32.
_ROUNDING = 1e-5
# Of sums over a whole vocabulary, at worst.
_SLACK = 1e-3

LISTS, ROWS, FINALISTS, DENSE = range(4)


class Side(NamedTuple):
    """One model's share of P.

    Attributes:
        lines: R_s or R_l.
        weights: (n, V) float32, its probabilities times alpha, or times 1 - alpha.
    """

    lines: MapLines
    weights: Tensor


class Peaks(NamedTuple):
    """The largest coordinates of n fused distributions.

    Attributes:
        coordinates: (n,) int64; of coordinates equal up to rounding any.
        attempts: (n,) int64, what settled each: `LISTS`, `ROWS`, `FINALISTS` or `DENSE`.
    """

    coordinates: Tensor
    attempts: Tensor


class _Rest(NamedTuple):
    """What the tokens that were not looked at add to any coordinate: (n,) float32 each.

    Attributes:
        least_mass: Their weight, rounded down.
        low: Their weight times the smallest entries of their rows, rounded down.
        most_mass: Their weight, rounded up.
        high: Their weight times the largest entries of their rows, rounded up.
    """

    least_mass: Tensor
    low: Tensor
    most_mass: Tensor
    high: Tensor


def find_peaks(sides: Sequence[Side], allowed: Tensor, top_k: int) -> Peaks:
    """The largest allowed coordinate of each row's P.

    Args:
        sides: The plug-in's share and the LLM's.
        allowed: (n, A) bool, at least one True in a row.
        top_k: Heaviest tokens of each side whose lists are looked at.
    """
    coordinates, certain = _by_lists(sides, allowed, top_k)
    attempts = torch.full_like(coordinates, LISTS)
    # The one place where the host waits for a device: what follows is work of another size.
    for row in (~certain).nonzero().squeeze(1).tolist():
        one = [Side(side.lines, side.weights[row : row + 1]) for side in sides]
        coordinates[row], attempts[row] = _by_rows(one, allowed[row : row + 1])
    return Peaks(coordinates, attempts)


def _by_lists(sides: Sequence[Side], allowed: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best coordinate that the lists know of, (n,) int64, and whether it is the peak, (n,) bool."""
    heaviest = [top_k(side.weights, min(count, side.weights.shape[1])) for side in sides]
    maps = [side.lines.relative_map for side in sides]
    listed = [each.peaks[ids].flatten(1) for each, (_, ids) in zip(maps, heaviest, strict=True)]
    candidates = torch.cat(listed, dim=1).to(torch.int64)
    low = torch.zeros(candidates.shape, device=candidates.device)
    high, unlisted = torch.zeros_like(low), torch.zeros_like(low[:, 0])
    for side, each, (values, ids) in zip(sides, maps, heaviest, strict=True):
        known = (values[:, None] @ each.entries(ids, candidates))[:, 0]
        rest = _rest_of(each, side.weights, ids)
        low += known + _at_least(rest, each.smallest[candidates])
        high += known + _at_most(rest, each.largest[candidates])
        unlisted += (values * each.others[ids]).sum(dim=1) + rest.high
    open_here = allowed.gather(1, candidates)
    best, place = low.masked_fill_(~open_here, -math.inf).max(dim=1)
    coordinates = candidates.gather(1, place[:, None])
    is_rival = open_here & (candidates != coordinates)
    rival = torch.maximum(high.masked_fill_(~is_rival, -math.inf).amax(dim=1), unlisted)
    return coordinates[:, 0], best * (1 - _ROUNDING) > rival * (1 + _ROUNDING)


def _by_rows(sides: Sequence[Side], allowed: Tensor) -> tuple[int, int]:
    """Settle one row of P; allowed is (1, A). Returns the coordinate and the attempt."""
    known, taken = torch.zeros(allowed.shape, device=allowed.device), 0
    heaviest = [top_k(side.weights, min(ROW_STEPS[-1], side.weights.shape[1])) for side in sides]
    for size in ROW_STEPS:
        low, high = torch.zeros_like(known), torch.zeros_like(known)
        for side, (values, ids) in zip(sides, heaviest, strict=True):
            known += values[:, taken:size] @ side.lines.rows.get(ids[0, taken:size])
            each = side.lines.relative_map
            rest = _rest_of(each, side.weights, ids[:, :size])
            low += _at_least(rest, each.smallest)
            high += _at_most(rest, each.largest)
        taken = size
        finalists = _finalists(low.add_(known), high.add_(known), allowed)
        if len(finalists) == 1:
            return int(finalists), ROWS
        if len(finalists) <= MOST_FINALISTS:
            return _by_columns(sides, finalists), FINALISTS
    fused = torch.zeros_like(known)
    for side in sides:
        fused += side.lines.relative_map.project(side.weights)
    return int(fused.masked_fill_(~allowed, -math.inf).argmax()), DENSE


def _finalists(low: Tensor, high: Tensor, allowed: Tensor) -> Tensor:
    """(k,) coordinates that no other one certainly beats, ascending; all arguments are (1, A)."""
    best = low.masked_fill(~allowed, -math.inf).amax()
    return (allowed & (high * (1 + _ROUNDING) >= best * (1 - _ROUNDING)))[0].nonzero().squeeze(1)


def _by_columns(sides: Sequence[Side], finalists: Tensor) -> int:
    """The best of a few coordinates, each computed in full; the lowest one of equals."""
    values = torch.zeros(len(finalists), dtype=torch.float64, device=finalists.device)
    for side in sides:
        for part, coordinate in enumerate(finalists.split(1)):
            column = side.lines.columns.get(coordinate)[0]
            values[part] += (side.weights[0].double() * column).sum()
    return int(finalists[values.argmax()])


def _rest_of(each: DenseMap, weights: Tensor, ids: Tensor) -> _Rest:
    """Sums over all tokens but ``ids``; these are taken out first, for a difference would be rounding."""
    remaining = weights.scatter(1, ids, 0.0)
    mass = remaining.sum(dim=1)
    low, high = remaining @ each.row_smallest, remaining @ each.peak_values[:, 0]
    return _Rest(*(total * (1 - _SLACK) for total in (mass, low)), *(t * (1 + _SLACK) for t in (mass, high)))


def _at_least(rest: _Rest, smallest: Tensor) -> Tensor:
    """(n, c) least addition to coordinates whose columns' smallest entries are given, (n, c) or (c,)."""
    return torch.maximum(rest.low[:, None], rest.least_mass[:, None] * smallest)


def _at_most(rest: _Rest, largest: Tensor) -> Tensor:
    """(n, c) largest addition to coordinates whose columns' largest entries are given, (n, c) or (c,)."""
    return torch.minimum(rest.high[:, None], rest.most_mass[:, None] * largest)
