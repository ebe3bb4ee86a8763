"""Fusion in the LLM's own vocabulary, where the textual maps meet; O(V), vectorised torch for CPUs.

The logits are read once and written once; all else happens at the tokens that the plug-in can say.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.dense.search import FLOOR
from onceedit_vllm.fusion.outcome import INACTIVE, LEFT, SAMPLED, SEARCHED
from onceedit_vllm.fusion.owed import OwedRows, owe_inplace
from onceedit_vllm.largest import first_max

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.fusion.carrier import Carrier

# Far more than float32 errs by in an exponential, a product and a sum, relative to the result.
_ROUNDING = 1e-5


class _Fused(NamedTuple):
    """What Eq. 8 needs of a row; u is the number of the carrier's targets.

    Attributes:
        largest: The LLM's largest logit.
        carried: (u,) float32, alpha q, 0 where masked.
        share: 1 - alpha.
        total: What P sums up to before it is renormalised.
    """

    largest: float
    carried: Tensor
    share: float
    total: float


def fuse_rows_inplace(
    logits: Tensor,
    rows: Tensor,
    plugin_log_probs: Tensor,
    alpha: Tensor,
    want_search: Tensor,
    carrier: Carrier,
    owed: OwedRows | None = None,
) -> Tensor:
    """Turn the LLM's logits into log P, ``P = alpha q + (1 - alpha) p_l`` (Eq. 8), or into its search.

    q is the plug-in's distribution carried over; what falls on masked tokens is dropped and the rest
    renormalised. Masked tokens stay at -inf and all others are finite: where alpha is 1, log 0 is about
    ``FLOOR``. The exact search of a textual map, whose columns are one-hot, is the winner of P alone: it
    gets 0, all others at most ``FLOOR``.

    Args:
        logits: (N, V_l), any float dtype and strides, changed in place.
        rows: (n,) int64, distinct rows; -1 for none.
        plugin_log_probs: (n, V_s) float32.
        alpha: (n,) float32.
        want_search: (n,) bool, True for the search result, False for log P.
        carrier: The carry table.
        owed: What the plug-in's last tokens still lack.

    Returns:
        (n,) int8, an :mod:`~onceedit_vllm.fusion.outcome` for each row.
    """
    outcome = [INACTIVE] * len(rows)
    asked = zip(rows.tolist(), plugin_log_probs, alpha.tolist(), want_search.tolist(), strict=True)
    # One for all rows: fresh memory of that size costs more than what is computed in it.
    scratch = torch.empty(logits.shape[1])
    # Row by row: what one pass leaves in a processor's caches is there for the next.
    for i, (index, log_probs, weight, search) in enumerate(asked):
        if index >= 0:
            debts = None if owed is None else OwedRows(*(part[i : i + 1] for part in owed))
            fused = _fuse(logits[index], log_probs, weight, carrier, debts)
            outcome[i] = _write(logits[index], fused, search, carrier, scratch)
    return torch.tensor(outcome, dtype=torch.int8)


def _write(row: Tensor, fused: _Fused | None, search: bool, carrier: Carrier, scratch: Tensor) -> int:
    """Replace a row; its outcome."""
    if fused is None:
        return LEFT
    if not search:
        _write_log_p(row, fused, carrier, scratch)
        return SAMPLED
    winner = _winner(row, fused, carrier, scratch)
    row.clamp_(max=FLOOR)[winner] = 0.0
    return SEARCHED


def _fuse(
    row: Tensor, log_probs: Tensor, alpha: float, carrier: Carrier, owed: OwedRows | None
) -> _Fused | None:
    """Eq. 8 for one row; None where the numbers are bad or nothing allowed has any probability."""
    smallest, largest = (float(extreme) for extreme in row.aminmax())
    # Each comparison is false for NaN as well.
    if not (0 <= alpha <= 1 and -math.inf < largest < math.inf and float(log_probs.amax()) < math.inf):
        return None
    if owed is not None and bool((owed.weight + owed.mass.sum(dim=1)).isnan()):
        return None
    carried = _carry(log_probs, carrier, owed).mul_(alpha)
    if smallest == -math.inf:
        carried.masked_fill_(row.index_select(0, carrier.targets) == -math.inf, 0.0)
    share = 1 - alpha
    total = share + float(carried.sum())
    return _Fused(largest, carried, share, total) if 0 < total < math.inf else None


def _carry(log_probs: Tensor, carrier: Carrier, owed: OwedRows | None) -> Tensor:
    """The plug-in's probabilities at the carrier's targets: (V_s,) -> (u,) float32."""
    # Nearly all targets have one source: picking it costs less than adding all up.
    probs = torch.empty(len(log_probs) + 1)
    torch.exp(log_probs.to(torch.float32), out=probs[:-1])
    probs[-1] = 0.0  # of the targets without a source
    carried = probs.index_select(0, carrier.first)
    carried.index_add_(0, carrier.other_slots, probs.index_select(0, carrier.others))
    if owed is not None:
        owe_inplace(carried[None], owed)
    return carried


def _winner(row: Tensor, fused: _Fused, carrier: Carrier, scratch: Tensor) -> int:
    """The token of the largest P, the lowest id of equals: a target, or the LLM's own best."""
    if len(carrier.targets) == 0:
        return _own_best(row)
    carried, slot = fused.carried.max(dim=0)
    if carried > fused.share:
        fused.carried[slot] = 0.0
        rival = fused.carried.amax() + fused.share
        fused.carried[slot] = carried
        # Were all of the LLM's share the rival's, it would not win: no need to look at the LLM's row.
        if carried > rival * (1 + _ROUNDING):
            return int(carrier.targets[slot])
    own_value = fused.share / _sum_of_exps(row, fused.largest, scratch)
    at_targets = _below(row, fused, carrier).exp_().mul_(own_value)
    value, slot = at_targets.add_(fused.carried).max(dim=0)
    winner, helped = int(carrier.targets[slot]), bool(fused.carried[slot] > 0)
    if not helped or own_value >= value:
        own = _own_best(row)
        # Without the plug-in's help no token beats the LLM's best, even if float32 says so.
        if not helped or own_value > value or own < winner:
            return own
    return winner


def _below(row: Tensor, fused: _Fused, carrier: Carrier) -> Tensor:
    """(u,) float32, the logits at the targets less the largest of all."""
    return row.index_select(0, carrier.targets).to(torch.float32).sub_(fused.largest)


def _own_best(row: Tensor) -> int:
    return int(first_max(row[None])[1])


def _sum_of_exps(row: Tensor, largest: float, scratch: Tensor) -> float:
    """Of the logits less the largest; apart from it, for beside a logit of 1e4 its log has no digits."""
    return float(scratch.copy_(row).sub_(largest).exp_().sum())


def _write_log_p(row: Tensor, fused: _Fused, carrier: Carrier, scratch: Tensor) -> None:
    total = math.log(fused.total)
    log_share = max(FLOOR, math.log(fused.share)) if fused.share else FLOOR
    shift = log_share - total - math.log(_sum_of_exps(row, fused.largest, scratch))
    log_p = scratch.copy_(row).sub_(fused.largest).add_(shift)
    below = _below(row, fused, carrier).add_(shift)
    log_p[carrier.targets] = torch.logaddexp(below, fused.carried.log().sub_(total))
    if row.dtype != torch.float32:
        # An allowed token must not become a masked one.
        log_p.clamp_(min=torch.finfo(row.dtype).min).masked_fill_(row == -math.inf, -math.inf)
    row.copy_(log_p)
