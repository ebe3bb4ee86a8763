"""Fusion in the LLM's own vocabulary, where the textual maps meet; O(V), vectorised torch for CPUs.

The logits are read once and written once; all else happens at the tokens that the plug-in can say.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import pad

from onceedit_vllm.alignment.largest import first_max
from onceedit_vllm.fusion.outcome import INACTIVE, LEFT, SAMPLED, SEARCHED
from onceedit_vllm.fusion.owed import OwedRows, owe_inplace
from onceedit_vllm.fusion.search import FLOOR

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.fusion.carrier import Carrier

# Numbers at the targets taken at once: what one pass leaves in a processor's caches is there for the next.
_ENTRIES_AT_ONCE = 2**19


class _Fused(NamedTuple):
    """Eq. 8 for k rows; u is the number of the carrier's targets. All float32 but the last two.

    Attributes:
        largest_log_p: (k,), the largest log p_l.
        at_targets: (k, u), log p_l at the targets.
        carried: (k, u), alpha q, 0 where masked.
        share: (k,), 1 - alpha.
        total: (k,), what P sums up to before it is renormalised.
        winner: (k,) int64, the token of the largest P, the lowest id of equals.
        good: (k,) bool, False where P is no distribution.
    """

    largest_log_p: Tensor
    at_targets: Tensor
    carried: Tensor
    share: Tensor
    total: Tensor
    winner: Tensor
    good: Tensor


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
    outcome = torch.full((len(rows),), INACTIVE, dtype=torch.int8)
    active = (rows >= 0).nonzero()[:, 0]
    for part in active.split(max(1, _ENTRIES_AT_ONCE // (len(carrier.targets) + 1))):
        few = None if owed is None else OwedRows(*(tensor[part] for tensor in owed))
        ids, search = rows[part].tolist(), want_search[part].tolist()
        fused = _fuse(logits, ids, plugin_log_probs[part], alpha[part], carrier, few)
        outcome[part] = torch.tensor(
            [_write_back(logits, row, fused, i, carrier, search[i]) for i, row in enumerate(ids)],
            dtype=torch.int8,
        )
    return outcome


def _fuse(
    logits: Tensor, rows: list[int], log_probs: Tensor, alpha: Tensor, carrier: Carrier, owed: OwedRows | None
) -> _Fused:
    at_targets = torch.empty(len(rows), len(carrier.targets))
    masked = torch.zeros(len(rows), dtype=torch.bool)
    largest_log_p = torch.empty(len(rows))
    for i, row in enumerate(rows):
        log_p = torch.log_softmax(logits[row], 0, dtype=torch.float32)
        torch.index_select(log_p, 0, carrier.targets, out=at_targets[i])
        largest_log_p[i] = log_p.amax()
        if len(carrier.targets):
            masked[i] = at_targets[i].amin() == -math.inf
    carried = _carry(log_probs, carrier, owed).mul_(alpha[:, None])
    # Few rows have a mask, and looking for its tokens costs more than the check. Row by row, for a NaN in
    # one must not hide the mask of another.
    for i in masked.nonzero()[:, 0].tolist():
        carried[i].masked_fill_(at_targets[i] == -math.inf, 0.0)
    share = 1 - alpha
    total = share + carried.sum(dim=1)
    good = (alpha >= 0) & (alpha <= 1) & largest_log_p.isfinite() & total.isfinite() & (total > 0)
    good &= log_probs.amax(dim=1) < math.inf  # False for NaN as well
    if owed is not None:
        good &= ~(owed.weight + owed.mass.sum(dim=1)).isnan()
    fused = _Fused(largest_log_p, at_targets, carried, share, total, torch.zeros(len(rows)).long(), good)
    return fused._replace(winner=_winner(logits, rows, fused, carrier))


def _carry(log_probs: Tensor, carrier: Carrier, owed: OwedRows | None) -> Tensor:
    """The plug-in's probabilities at the carrier's targets: (k, V_s) -> (k, u) float32."""
    # Nearly all targets have one source: picking it costs less than adding all up.
    probs = pad(log_probs.to(torch.float32), (0, 1), value=-math.inf).exp_()
    carried = probs.index_select(1, carrier.first)
    carried.index_add_(1, carrier.other_slots, probs.index_select(1, carrier.others))
    if owed is not None:
        owe_inplace(carried, owed)
    return carried


def _winner(logits: Tensor, rows: list[int], fused: _Fused, carrier: Carrier) -> Tensor:
    """(k,) int64, the token of the largest P, the lowest id of equals: a target, or the LLM's own best."""
    winner = fused.winner.clone()
    own_value = fused.largest_log_p.exp() * fused.share
    value = torch.full_like(own_value, -math.inf)
    if len(carrier.targets):
        value, slot = first_max(torch.addcmul(fused.carried, fused.at_targets.exp(), fused.share[:, None]))
        winner = carrier.targets[slot]
        helped = fused.carried.gather(1, slot[:, None])[:, 0] > 0
    for i in (fused.good & (own_value >= value)).nonzero()[:, 0].tolist():
        own = first_max(logits[rows[i], None])[1][0]
        # Without the plug-in's help a token of a smaller logit is no equal, even if float32 says so.
        if own_value[i] > value[i] or own < winner[i] or not helped[i]:
            winner[i] = own
    return winner


def _write_back(
    logits: Tensor, row: int, fused: _Fused, place: int, carrier: Carrier, want_search: bool
) -> int:
    if not fused.good[place]:
        return LEFT
    if want_search:
        logits[row].clamp_(max=FLOOR)[fused.winner[place]] = 0.0
        return SEARCHED
    shift = fused.share[place].log().clamp_(min=FLOOR) - fused.total[place].log()
    from_plugin = fused.carried[place].log().sub_(fused.total[place].log())
    log_p = logits[row].to(torch.float32, copy=True)
    log_p.sub_(log_p.amax()).add_(fused.largest_log_p[place] + shift)
    log_p[carrier.targets] = torch.logaddexp(fused.at_targets[place] + shift, from_plugin)
    if logits.dtype != torch.float32:
        # An allowed token must not become a masked one.
        log_p.clamp_(min=torch.finfo(logits.dtype).min).masked_fill_(logits[row] == -math.inf, -math.inf)
    logits[row].copy_(log_p)
    return SAMPLED
