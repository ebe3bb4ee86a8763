"""How much and how little each coordinate of the fused distribution can be, short of computing it.

P is a weighted sum of rows of two relative maps. Of some tokens whole rows or single entries are looked
at; of all others :class:`~onceedit_vllm.dense.maps.DenseMap` knows the largest entries and the
extremes of rows and columns. Bounds are never guesses: :func:`margin` is what float32 can have rounded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.largest import top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from onceedit_vllm.dense.lines import MapLines
    from onceedit_vllm.dense.maps import DenseMap

# Single entries held at once: 2**25 float32 are 128 MiB.
_ENTRIES_AT_ONCE = 2**25
# Half a unit in the last place of float32, and how much more a GPU's faster modes of multiplying err.
_EPSILON = 2**-24
_COARSER = {"highest": 1, "high": 2**13, "medium": 2**16}


class Side(NamedTuple):
    """One model's share of P.

    Attributes:
        lines: R_s or R_l.
        weights: (n, V) float32, its probabilities times alpha, or times 1 - alpha.
    """

    lines: MapLines
    weights: Tensor


class Rest(NamedTuple):
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


def margin(sides: Sequence[Side], num_terms: int) -> float:
    """Relative error of a float32 sum of so many entries, each times a weight."""
    coarser = _COARSER[torch.get_float32_matmul_precision()]
    return coarser * (max(side.lines.relative_map.rounding for side in sides) + num_terms * _EPSILON)


def finalists_of(low: Tensor, high: Tensor, error: float, allowed: Tensor | None = None) -> Tensor:
    """(k,) places that no other one certainly beats, ascending; all tensors are (c,).

    Args:
        low: Lower bounds.
        high: Upper bounds.
        error: The relative error of both, see :func:`margin`.
        allowed: Which places count; all by default.
    """
    if allowed is not None:
        low, high = low.masked_fill(~allowed, -math.inf), high.masked_fill(~allowed, -math.inf)
    return (high * (1 + error) >= low.amax() * (1 - error)).nonzero().squeeze(1)


def bounds_by_rows(sides: Sequence[Side], size: int) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of every coordinate, (n, A) each, by the rows of the heaviest tokens."""
    low = high = torch.zeros((), device=sides[0].weights.device)
    for side in sides:
        each = side.lines.relative_map
        values, ids = top_k(side.weights, min(size, each.vocab_size))
        least, most = _bounds_of_rest(each, side.weights, ids)
        if size > 0:
            distinct, places = ids.unique(return_inverse=True)
            taken = values.new_zeros(len(values), len(distinct)).scatter_(1, places, values)
            known = taken @ side.lines.rows.get(distinct)
            least, most = least + known, most + known
        low, high = low + least, high + most
    return low, high


def _bounds_of_rest(each: DenseMap, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """What all tokens but ``ids`` add to every coordinate at least and at most: (n, A) float64 each."""
    rest = rest_of(each, weights, ids)
    bounds = [_bounds_by_all_lists(each, row) for row in weights.double().scatter_(1, ids, 0.0)]
    low, high = (torch.stack(part) for part in zip(*bounds, strict=True))
    low = torch.maximum(low, at_least(rest, each.smallest))
    return low, torch.minimum(high, at_most(rest, each.largest))


def _bounds_by_all_lists(each: DenseMap, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What all tokens add to every coordinate at least and at most: (V,) float64 -> (A,) float64 each.

    Of each row the largest entries are known and no other one is larger than ``others``, or smaller than
    ``row_smallest``. In float64, so that only the entries themselves are rounded.
    """
    values, places = each.peak_values.double(), each.peaks.flatten()

    def bound(elsewhere: Tensor) -> Tensor:
        above = (values - elsewhere[:, None]).mul_(weights[:, None]).flatten()
        return torch.bincount(places, above, minlength=each.num_coordinates).add_(weights @ elsewhere)

    return bound(each.row_smallest.double()), bound(each.others.double())


def bounds_by_entries(sides: Sequence[Side], finalists: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The same bounds for one row of P and some coordinates, (k,) each."""
    low = high = torch.zeros((), device=finalists.device)
    at_once = max(1, _ENTRIES_AT_ONCE // len(finalists))
    for side in sides:
        each = side.lines.relative_map
        values, ids = top_k(side.weights, min(size, each.vocab_size))
        # In float64: a sum of so many terms would round by more than what it is to tell apart.
        known = sum(
            (v.double() @ each.entries(i, finalists[None])[0].double())[0]
            for v, i in zip(values.split(at_once, dim=1), ids.split(at_once, dim=1), strict=True)
        )
        least, most = _bounds_of_rest(each, side.weights, ids)
        low, high = low + known + least[0, finalists], high + known + most[0, finalists]
    return low, high


def rest_of(each: DenseMap, weights: Tensor, ids: Tensor) -> Rest:
    """Sums over all tokens but ``ids``; these are taken out first, for a difference would be rounding."""
    remaining = weights.scatter(1, ids, 0.0)
    mass = remaining.sum(dim=1)
    low, high = remaining @ each.row_smallest, remaining @ each.peak_values[:, 0]
    slack = weights.shape[1] * _EPSILON * _COARSER[torch.get_float32_matmul_precision()]
    less, more = max(0.0, 1 - slack), 1 + slack
    return Rest(mass * less, low * less, mass * more, high * more)


def at_least(rest: Rest, smallest: Tensor) -> Tensor:
    """(n, c) least addition to coordinates whose columns' smallest entries are given, (n, c) or (c,)."""
    return torch.maximum(rest.low[:, None], rest.least_mass[:, None] * smallest)


def at_most(rest: Rest, largest: Tensor) -> Tensor:
    """(n, c) largest addition to coordinates whose columns' largest entries are given, (n, c) or (c,)."""
    return torch.minimum(rest.high[:, None], rest.most_mass[:, None] * largest)
