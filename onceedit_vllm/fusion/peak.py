"""Finding the largest coordinate of the fused distribution without computing the distribution.

P is a weighted sum of rows of two relative maps. A few tokens hold most of the weight, and of each row
the largest entries are known (:class:`~onceedit_vllm.alignment.dense.DenseMap`), so that every coordinate
of P can be bounded from both sides. Where one coordinate's lower bound beats all other upper bounds the
peak is certain. Five attempts, each for the rows that the one before left open:

1. *lists*: only coordinates among the largest of the heaviest tokens' rows; O(V) and no more;
2. *all lists*: the largest entries of every token's row, which bound every coordinate; O(V + A);
3. *rows*: whole rows of the heaviest tokens besides, then single entries of more and more tokens for the
   coordinates that are left;
4. *finalists*: the few coordinates that the bounds cannot tell apart, computed in full;
5. *dense*: the whole product, in chunks, one pass for all rows that need it.

Nothing is guessed: a margin for what float32 can have rounded is part of every comparison.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.alignment.dense import NUM_PEAKS
from onceedit_vllm.alignment.largest import top_k

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from onceedit_vllm.alignment.dense import DenseMap
    from onceedit_vllm.fusion.lines import MapLines

# How many times more tokens are listed for the rows that the first lists leave open.
_MORE = 4
#: Heaviest tokens of each side whose whole rows are taken, step by step: none where all lists will do.
ROW_STEPS = (0, 64, 256, 1024)
# Heaviest tokens whose single entries are taken first.
_FEWEST_ENTRIES = 256
#: With at most so many coordinates left, single entries are the better deal than rows.
MOST_NARROWED = 4096
#: At most so many coordinates are computed in full.
MOST_FINALISTS = 64
# Entries of rows, or single ones, held at once: 2**25 float32 are 128 MiB.
_ENTRIES_AT_ONCE = 2**25
# Half a unit in the last place of float32, and how much more a GPU's faster modes of multiplying err.
_EPSILON = 2**-24
_COARSER = {"highest": 1, "high": 2**13, "medium": 2**16}

LISTS, ALL_LISTS, ROWS, FINALISTS, DENSE = range(5)


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
        attempts: (n,) int64, what settled each: `LISTS`, `ALL_LISTS`, `ROWS`, `FINALISTS` or `DENSE`.
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
        top_k: Heaviest tokens of each side whose lists are looked at; four times as many where need be.
    """
    coordinates = torch.zeros(len(allowed), dtype=torch.int64, device=allowed.device)
    attempts = torch.full_like(coordinates, LISTS)
    left = torch.arange(len(allowed), device=allowed.device)
    for count in (top_k, _MORE * top_k):
        # A few rows at a time: the embeddings of all that is listed are gathered.
        gathered = 2 * count * NUM_PEAKS * max(side.lines.relative_map.embeddings.shape[1] for side in sides)
        certain = []
        for rows in left.split(max(1, _ENTRIES_AT_ONCE // gathered)):
            coordinates[rows], sure = _by_lists(_rows_of(sides, rows), allowed[rows], count)
            certain.append(sure)
        # Here the host waits for a device: what follows is work of another size.
        left = left[~torch.cat(certain)] if certain else left
    if len(left):
        found = _without_lists(_rows_of(sides, left), allowed[left])
        coordinates[left], attempts[left] = found.coordinates, found.attempts
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
        # Any other coordinate has, in the rows of the heaviest tokens, less than all that are listed.
        unlisted += (values * each.others[ids]).sum(dim=1) + rest.high
    open_here = allowed.gather(1, candidates)
    best, place = low.masked_fill_(~open_here, -math.inf).max(dim=1)
    coordinates = candidates.gather(1, place[:, None])
    is_rival = open_here & (candidates != coordinates)
    rival = torch.maximum(high.masked_fill_(~is_rival, -math.inf).amax(dim=1), unlisted)
    margin = _margin(sides, candidates.shape[1])
    return coordinates[:, 0], best * (1 - margin) > rival * (1 + margin)


def _without_lists(sides: Sequence[Side], allowed: Tensor) -> Peaks:
    """All other attempts, for the rows that the lists left open."""
    coordinates = torch.zeros(len(allowed), dtype=torch.int64, device=allowed.device)
    attempts = torch.full_like(coordinates, DENSE)
    for row, finalists, step in _by_rows(sides, allowed):
        if len(finalists) == 1:
            coordinates[row], attempts[row] = finalists, ROWS if step else ALL_LISTS
        else:
            coordinates[row], attempts[row] = _narrow(_rows_of(sides, [row]), finalists)
    left = (attempts == DENSE).nonzero().squeeze(1)
    if len(left):
        fused = sum(side.lines.relative_map.project(side.weights) for side in _rows_of(sides, left))
        coordinates[left] = torch.where(allowed[left], fused, -math.inf).argmax(dim=1)
    return Peaks(coordinates, attempts)


def _rows_of(sides: Sequence[Side], rows: Tensor | list[int]) -> list[Side]:
    return [Side(side.lines, side.weights[rows]) for side in sides]


def _by_rows(sides: Sequence[Side], allowed: Tensor) -> Iterator[tuple[int, Tensor, int]]:
    """Rows of P, the coordinates (k,) that can be its peak, and the step; rows with too many are left out."""
    size = max(side.weights.shape[1] for side in sides)
    left = list(range(len(allowed)))
    for step in ROW_STEPS:
        # Beyond that, the whole product is less work.
        if step * len(left) > size:
            return
        # Bounds are float64, so that they take room even where there are no rows.
        at_once = max(1, _ENTRIES_AT_ONCE // (max(step, 16) * allowed.shape[1]))
        groups = [left[i : i + at_once] for i in range(0, len(left), at_once)]
        left = []
        for group in groups:
            low, high = _bounds_by_rows(_rows_of(sides, group), step)
            for row, least, most in zip(group, low, high, strict=True):
                finalists = _finalists(least, most, _margin(sides, 2 * step + 2), allowed[row])
                if len(finalists) <= MOST_NARROWED:
                    yield row, finalists, step
                else:
                    left.append(row)


def _bounds_by_rows(sides: Sequence[Side], size: int) -> tuple[Tensor, Tensor]:
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
    rest = _rest_of(each, weights, ids)
    bounds = [_bounds_by_all_lists(each, row) for row in weights.double().scatter_(1, ids, 0.0)]
    low, high = (torch.stack(part) for part in zip(*bounds, strict=True))
    return torch.maximum(low, _at_least(rest, each.smallest)), torch.minimum(
        high, _at_most(rest, each.largest)
    )


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


def _narrow(sides: Sequence[Side], finalists: Tensor) -> tuple[int, int]:
    """The peak of one row of P among some coordinates, and what settled it: `DENSE` where nothing did."""
    size = _FEWEST_ENTRIES
    while len(finalists) > 1 and 2 * size < max(side.weights.shape[1] for side in sides):
        finalists = finalists[_finalists(*_bounds_by_entries(sides, finalists, size), _margin(sides, 1))]
        size *= 4
    if len(finalists) == 1:
        return int(finalists), ROWS
    if len(finalists) <= MOST_FINALISTS:
        return _by_columns(sides, finalists), FINALISTS
    return 0, DENSE


def _bounds_by_entries(sides: Sequence[Side], finalists: Tensor, size: int) -> tuple[Tensor, Tensor]:
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


def _margin(sides: Sequence[Side], num_terms: int) -> float:
    """Relative error of a float32 sum of so many entries, each times a weight."""
    coarser = _COARSER[torch.get_float32_matmul_precision()]
    return coarser * (max(side.lines.relative_map.rounding for side in sides) + num_terms * _EPSILON)


def _finalists(low: Tensor, high: Tensor, margin: float, allowed: Tensor | None = None) -> Tensor:
    """(k,) places that no other one certainly beats, ascending; all tensors are (c,)."""
    if allowed is not None:
        low, high = low.masked_fill(~allowed, -math.inf), high.masked_fill(~allowed, -math.inf)
    return (high * (1 + margin) >= low.amax() * (1 - margin)).nonzero().squeeze(1)


def _by_columns(sides: Sequence[Side], finalists: Tensor) -> int:
    """The best of a few coordinates, each computed in full; the lowest one of equals."""
    values = sum(side.lines.columns.get(finalists).double() @ side.weights[0].double() for side in sides)
    assert isinstance(values, torch.Tensor)
    return int(finalists[values.argmax()])


def _rest_of(each: DenseMap, weights: Tensor, ids: Tensor) -> _Rest:
    """Sums over all tokens but ``ids``; these are taken out first, for a difference would be rounding."""
    remaining = weights.scatter(1, ids, 0.0)
    mass = remaining.sum(dim=1)
    low, high = remaining @ each.row_smallest, remaining @ each.peak_values[:, 0]
    slack = weights.shape[1] * _EPSILON * _COARSER[torch.get_float32_matmul_precision()]
    less, more = max(0.0, 1 - slack), 1 + slack
    return _Rest(mass * less, low * less, mass * more, high * more)


def _at_least(rest: _Rest, smallest: Tensor) -> Tensor:
    """(n, c) least addition to coordinates whose columns' smallest entries are given, (n, c) or (c,)."""
    return torch.maximum(rest.low[:, None], rest.least_mass[:, None] * smallest)


def _at_most(rest: _Rest, largest: Tensor) -> Tensor:
    """(n, c) largest addition to coordinates whose columns' largest entries are given, (n, c) or (c,)."""
    return torch.minimum(rest.high[:, None], rest.most_mass[:, None] * largest)
