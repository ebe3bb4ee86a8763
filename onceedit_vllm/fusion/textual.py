"""Fusion in the LLM's own vocabulary, where the textual maps meet; in log space, O(V)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.fusion.owed import owe_inplace
from onceedit_vllm.fusion.search import FLOOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from onceedit_vllm.fusion.owed import Owed


class Carrier(NamedTuple):
    """The carry table, laid out for one pass over its tokens.

    Attributes:
        sources: (m,) int64, plug-in tokens that have a place in the LLM's vocabulary.
        slots: (m,) int64, the index of that place in ``targets``.
        targets: (u,) int64, the distinct places, ascending.
    """

    sources: Tensor
    slots: Tensor
    targets: Tensor

    @classmethod
    def of(cls, carry: Tensor, further: Tensor, llm_width: int, device: torch.device) -> Carrier:
        """Lay out a carry table (V_s,); places beyond the LLM's logits are dropped.

        Args:
            carry: (V_s,) int64.
            further: (f,) int64, LLM tokens that need a place too: those that continue a spelling.
            llm_width: V_l.
            device: Where the tables go.
        """
        sources = ((carry >= 0) & (carry < llm_width)).nonzero().squeeze(1)
        places = torch.cat([carry[sources], further[further < llm_width]])
        targets, slots = places.unique(return_inverse=True)
        return cls(sources.to(device), slots[: len(sources)].to(device), targets.to(device))


def fuse_textual_inplace(
    logits: Tensor,
    plugin_log_probs: Tensor,
    alpha: Tensor,
    carrier: Carrier,
    owed: Sequence[Owed | None] | None = None,
) -> Tensor:
    """Turn the LLM's logits into log P, ``P = alpha q + (1 - alpha) p_l`` renormalised (Eq. 8).

    q is the plug-in's distribution carried over; what falls on masked tokens is dropped. Masked
    tokens stay at -inf and all others are finite: where alpha is 1, log 0 is about ``FLOOR``.

    Args:
        logits: (n, V_l) float32, changed in place.
        plugin_log_probs: (n, V_s) float32.
        alpha: (n,) float32.
        carrier: The carry table.
        owed: Per row, what the plug-in's last token still lacks.

    Returns:
        (n,) bool, the rows in which P is a distribution; the others hold nothing of use.
    """
    normaliser = logits.logsumexp(dim=1)
    targets = carrier.targets.expand(len(logits), -1)
    at_targets = logits.gather(1, targets)
    carried = torch.zeros_like(at_targets)
    carried.scatter_add_(
        1, carrier.slots.expand(len(logits), -1), plugin_log_probs[:, carrier.sources].exp_()
    )
    if owed is not None:
        owe_inplace(carried, carrier.targets, owed)
    carried.mul_(alpha[:, None]).masked_fill_(at_targets == -math.inf, 0.0)
    total = (1 - alpha) + carried.sum(dim=1)
    shift = ((1 - alpha).log().clamp(min=FLOOR) - normaliser - total.log())[:, None]
    from_plugin = carried.log_().sub_(total.log()[:, None])
    logits.add_(shift).scatter_(1, targets, torch.logaddexp(at_targets + shift, from_plugin))
    numbers = plugin_log_probs.amax(dim=1) < math.inf  # False for NaN as well
    in_range = (alpha >= 0) & (alpha <= 1)
    return numbers & in_range & normaliser.isfinite() & total.isfinite() & (total > 0)


def keep_winner_inplace(log_probs: Tensor) -> Tensor:
    """The exact search of a textual map: its column at a* is one-hot at the winner of log P.

    Args:
        log_probs: (k, V_l) float32, changed in place: 0 at the winner, at most ``FLOOR`` elsewhere,
            -inf where masked.

    Returns:
        The same tensor.
    """
    winner = log_probs.argmax(dim=1, keepdim=True)
    return log_probs.clamp_(max=FLOOR).scatter_(1, winner, 0.0)
