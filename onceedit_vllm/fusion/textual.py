"""Fusion in the LLM's own vocabulary, on lists of its tokens; O(V), vectorised torch for CPUs.

The logits are read once and written once; all else happens at the tokens that are listed. Cut lists take this
way on a GPU too, and wait there for every row: they come from another process, which takes longer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.dense.search import FLOOR
from onceedit_vllm.fusion.outcome import INACTIVE, LEFT, SAMPLED, SEARCHED, UNCERTIFIED
from onceedit_vllm.largest import first_max

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.fusion.lists import Lists

# Far more than float32 errs by in an exponential, a product and a sum, relative to the result.
_ROUNDING = 1e-5


class _Listed(NamedTuple):
    """One row of lists, without what fills it up: (k,) int64, (k,) float32, and its tail."""

    ids: Tensor
    mass: Tensor
    tail: float


class _Fused(NamedTuple):
    """What Eq. 8 needs of a row; k is the number of tokens listed.

    Attributes:
        largest: The LLM's largest logit.
        ids: (k,) int64, the tokens listed, ascending.
        carried: (k,) float32, alpha q, 0 where masked.
        unlisted: The most that alpha q can be at any one token that is not listed.
        share: 1 - alpha.
        total: What P sums up to before it is renormalised.
    """

    largest: float
    ids: Tensor
    carried: Tensor
    unlisted: float
    share: float
    total: float


def fuse_rows_inplace(
    logits: Tensor, rows: Tensor, lists: Lists, alpha: Tensor, want_search: Tensor
) -> Tensor:
    """Turn the LLM's logits into log P, ``P = alpha q + (1 - alpha) p_l`` (Eq. 8), or into its search.

    q is the plug-in's distribution as listed; what falls on masked tokens is dropped and the rest
    renormalised. Masked tokens stay at -inf and all others are finite: where alpha is 1, log 0 is about
    ``FLOOR``. The exact search of a textual map, whose columns are one-hot, is the winner of P alone: it
    gets 0, all others at most ``FLOOR``.

    Where the plug-in may have said something that is not listed, a row to be searched is replaced only
    if no token could win with it that does not without. A row of which all that is listed is masked is
    untouched as well, whatever it is for.

    Args:
        logits: (N, V_l), any float dtype and strides, changed in place.
        rows: (n,) int64, distinct rows; -1 for none.
        lists: What the plug-in says for each of them.
        alpha: (n,) float32.
        want_search: (n,) bool, True for the search result, False for log P.

    Returns:
        (n,) int8, an :mod:`~onceedit_vllm.fusion.outcome` for each row.
    """
    outcome = [INACTIVE] * len(rows)
    asked = zip(rows.tolist(), lists.tail.tolist(), alpha.tolist(), want_search.tolist(), strict=True)
    # One for all rows: fresh memory of that size costs more than what is computed in it.
    scratch = torch.empty(logits.shape[1], device=logits.device)
    # Row by row: what one pass leaves in a processor's caches is there for the next.
    for i, (index, tail, weight, search) in enumerate(asked):
        if index >= 0:
            listed = _Listed(*_row_of(lists, i), tail)
            outcome[i] = _replace(logits[index], listed, weight, search, scratch)
    return torch.tensor(outcome, dtype=torch.int8, device=logits.device)


def _row_of(lists: Lists, i: int) -> tuple[Tensor, Tensor]:
    if lists.whole:
        return lists.ids[i], lists.mass[i]
    num_listed = int((lists.ids[i] >= 0).sum())
    return lists.ids[i, :num_listed], lists.mass[i, :num_listed]


def _replace(row: Tensor, listed: _Listed, alpha: float, search: bool, scratch: Tensor) -> int:
    """Replace a row, or do not; its outcome."""
    fused = _fuse(row, listed, alpha)
    if fused is None:
        return LEFT
    if fused.unlisted > 0 and not bool(fused.carried.any()):
        return UNCERTIFIED
    if not 0 < fused.total < math.inf:
        return LEFT
    if not search:
        _write_log_p(row, fused, scratch)
        return SAMPLED
    winner = _winner(row, fused, scratch)
    if winner is None:
        return UNCERTIFIED
    row.clamp_(max=FLOOR)[winner] = 0.0
    return SEARCHED


def _fuse(row: Tensor, listed: _Listed, alpha: float) -> _Fused | None:
    """Eq. 8 for one row; None where the numbers are bad."""
    smallest, largest = (float(extreme) for extreme in row.aminmax())
    # Each comparison is false for NaN as well.
    if not (0 <= alpha <= 1 and -math.inf < largest < math.inf) or math.isnan(listed.tail):
        return None
    carried = listed.mass * alpha
    if smallest == -math.inf:
        carried.masked_fill_(row.index_select(0, listed.ids) == -math.inf, 0.0)
    share = 1 - alpha
    return _Fused(largest, listed.ids, carried, _unlisted(listed, alpha), share, share + float(carried.sum()))


def _unlisted(listed: _Listed, alpha: float) -> float:
    """The tail is all there is, and no token of it has more than the smallest one listed."""
    if listed.tail == 0 or len(listed.mass) == 0:
        return alpha * listed.tail
    return alpha * min(float(listed.mass.amin()), listed.tail)


def _winner(row: Tensor, fused: _Fused, scratch: Tensor) -> int | None:
    """The token of the largest P, the lowest id of equals: a listed one, or the LLM's own best.

    None where one that is not listed could be it.
    """
    if len(fused.ids) == 0:
        return _own_best(row)
    carried, slot = fused.carried.max(dim=0)
    if carried > fused.share:
        fused.carried[slot] = 0.0
        rival = max(float(fused.carried.amax()), fused.unlisted) + fused.share
        fused.carried[slot] = carried
        # Were all of the LLM's share the rival's, it would not win: no need to look at the LLM's row.
        if carried > rival * (1 + _ROUNDING):
            return int(fused.ids[slot])
    own_value = fused.share / _sum_of_exps(row, fused.largest, scratch)
    winner = _best(row, fused, own_value)
    return winner if _is_certain(row, fused, own_value, winner, scratch) else None


def _best(row: Tensor, fused: _Fused, own_value: float) -> int:
    """The token of the largest P, had the plug-in said nothing but what is listed.

    Args:
        row: (V_l,) logits.
        fused: Of the row.
        own_value: P at the LLM's own best, had the plug-in said nothing there.
    """
    at_listed = _below(row, fused).exp_().mul_(own_value)
    value, slot = at_listed.add_(fused.carried).max(dim=0)
    winner, helped = int(fused.ids[slot]), bool(fused.carried[slot] > 0)
    if not helped or own_value >= value:
        own = _own_best(row)
        # Without the plug-in's help no token beats the LLM's best, even if float32 says so.
        if not helped or own_value > value or own < winner:
            return own
    return winner


def _is_certain(row: Tensor, fused: _Fused, own_value: float, winner: int, scratch: Tensor) -> bool:
    """Whether no token outside the list could win with what is not listed."""
    if fused.unlisted == 0:
        return True
    outside = scratch.copy_(row)
    outside[fused.ids] = -math.inf
    outside[winner] = -math.inf
    rival = float(outside.amax())
    if rival == -math.inf:
        return True
    # In float64, from the very logits: rounded to float32 one of -80 would be 5e-6 off as an exponential.
    least, most = (own_value * math.exp(logit - fused.largest) for logit in (float(row[winner]), rival))
    least += float(fused.carried[fused.ids == winner].sum())
    return least > (most + fused.unlisted) * (1 + _ROUNDING)


def _below(row: Tensor, fused: _Fused) -> Tensor:
    """(k,) float32, the logits of what is listed less the largest of all."""
    return row.index_select(0, fused.ids).to(torch.float32).sub_(fused.largest)


def _own_best(row: Tensor) -> int:
    return int(first_max(row[None])[1])


def _sum_of_exps(row: Tensor, largest: float, scratch: Tensor) -> float:
    """Of the logits less the largest; apart from it, for beside a logit of 1e4 its log has no digits."""
    return float(scratch.copy_(row).sub_(largest).exp_().sum())


def _write_log_p(row: Tensor, fused: _Fused, scratch: Tensor) -> None:
    total = math.log(fused.total)
    log_share = max(FLOOR, math.log(fused.share)) if fused.share else FLOOR
    shift = log_share - total - math.log(_sum_of_exps(row, fused.largest, scratch))
    log_p = scratch.copy_(row).sub_(fused.largest).add_(shift)
    below = _below(row, fused).add_(shift)
    log_p[fused.ids] = torch.logaddexp(below, fused.carried.log().sub_(total))
    if row.dtype != torch.float32:
        # An allowed token must not become a masked one.
        log_p.clamp_(min=torch.finfo(row.dtype).min).masked_fill_(row == -math.inf, -math.inf)
    row.copy_(log_p)
