"""Finding the largest coordinate of the fused distribution without computing the distribution.

P is a weighted sum of rows of two relative maps. A few tokens hold most of the weight, and of each row
the largest entries are known (:class:`~onceedit_vllm.dense.maps.DenseMap`), so that every coordinate
of P can be bounded from both sides. Where one coordinate's lower bound beats all other upper bounds the
peak is certain. Five attempts, each for the rows that the one before left open:

1. *lists*: only coordinates among the largest of the heaviest tokens' rows; O(V) and no more;
2. *all lists*: the largest entries of every token's row, which bound every coordinate; O(V + A);
3. *rows*: whole rows of the heaviest tokens besides, then single entries of more and more tokens for the
   coordinates that are left;
4. *finalists*: the few coordinates that the bounds cannot tell apart, computed in full;
5. *dense*: the whole product, in chunks, one pass for all rows that need it.

Nothing is guessed: :mod:`~onceedit_vllm.dense.bounds` are compared with a margin for what float32 rounds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.dense.bounds import (
    Side,
    at_least,
    at_most,
    bounds_by_entries,
    bounds_by_rows,
    finalists_of,
    margin,
    rest_of,
)
from onceedit_vllm.dense.maps import NUM_PEAKS
from onceedit_vllm.largest import top_k

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


# How many times more tokens are listed for the rows that the first lists leave open.
_MORE = 4
#: Heaviest tokens of each side whose whole rows are taken, step by step: none where all lists will do.
ROW_STEPS = (0, 64, 256, 1024)
# Heaviest tokens whose single entries are taken first.
_FEWEST_ENTRIES = 256
#: With at most so many coordinates left, single entries are the better deal than rows.
MOST_NARROWED = 4096
#: So many coordinates are computed in full in any case, in one go.
MOST_FINALISTS = 64
# Entries of rows held at once: 2**25 float32 are 128 MiB.
_ENTRIES_AT_ONCE = 2**25

LISTS, ALL_LISTS, ROWS, FINALISTS, DENSE = range(5)


class Peaks(NamedTuple):
    """The largest coordinates of n fused distributions.

    Attributes:
        coordinates: (n,) int64; of coordinates equal up to rounding any.
        attempts: (n,) int64, what settled each: `LISTS`, `ALL_LISTS`, `ROWS`, `FINALISTS` or `DENSE`.
    """

    coordinates: Tensor
    attempts: Tensor


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
        rest = rest_of(each, side.weights, ids)
        low += known + at_least(rest, each.smallest[candidates])
        high += known + at_most(rest, each.largest[candidates])
        # Any other coordinate has, in the rows of the heaviest tokens, less than all that are listed.
        unlisted += (values * each.others[ids]).sum(dim=1) + rest.high
    open_here = allowed.gather(1, candidates)
    best, place = low.masked_fill_(~open_here, -math.inf).max(dim=1)
    coordinates = candidates.gather(1, place[:, None])
    is_rival = open_here & (candidates != coordinates)
    rival = torch.maximum(high.masked_fill_(~is_rival, -math.inf).amax(dim=1), unlisted)
    error = margin(sides, candidates.shape[1])
    return coordinates[:, 0], best * (1 - error) > rival * (1 + error)


def _without_lists(sides: Sequence[Side], allowed: Tensor) -> Peaks:
    """All other attempts, for the rows that the lists left open."""
    coordinates = torch.zeros(len(allowed), dtype=torch.int64, device=allowed.device)
    attempts = torch.full_like(coordinates, DENSE)
    for row, finalists, step in _by_rows(sides, allowed):
        if len(finalists) == 1:
            coordinates[row], attempts[row] = finalists, ROWS if step else ALL_LISTS
        else:
            # More columns than that, and the product of all rows together is less work.
            most = max(MOST_FINALISTS, allowed.shape[1] // (2 * len(allowed)))
            coordinates[row], attempts[row] = _narrow(_rows_of(sides, [row]), finalists, most)
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
            low, high = bounds_by_rows(_rows_of(sides, group), step)
            for row, least, most in zip(group, low, high, strict=True):
                finalists = finalists_of(least, most, margin(sides, 2 * step + 2), allowed[row])
                if len(finalists) <= MOST_NARROWED:
                    yield row, finalists, step
                else:
                    left.append(row)


def _narrow(sides: Sequence[Side], finalists: Tensor, most: int) -> tuple[int, int]:
    """The peak of one row of P among some coordinates, and what settled it: `DENSE` where nothing did."""
    size = _FEWEST_ENTRIES
    while len(finalists) > 1 and 2 * size < max(side.weights.shape[1] for side in sides):
        finalists = finalists[finalists_of(*bounds_by_entries(sides, finalists, size), margin(sides, 1))]
        size *= 4
    if len(finalists) == 1:
        return int(finalists), ROWS
    if len(finalists) <= most:
        return _by_columns(sides, finalists), FINALISTS
    return 0, DENSE


def _by_columns(sides: Sequence[Side], finalists: Tensor) -> int:
    """The best of a few coordinates, each computed in full; the lowest one of equals."""
    values = torch.zeros(len(finalists), dtype=torch.float64, device=finalists.device)
    for side in sides:
        weights, lines = side.weights[0].double(), side.lines
        # A few may be asked for again; many would drive all else out of the cache.
        columns = lines.columns.get if len(finalists) <= MOST_FINALISTS else lines.relative_map.columns
        values += torch.cat([columns(few).double() @ weights for few in finalists.split(MOST_FINALISTS)])
    return int(finalists[values.argmax()])
