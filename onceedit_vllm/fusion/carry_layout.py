"""The textual map as index tables: which plug-in tokens say which LLM token."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


class CarryLayout(NamedTuple):
    """The carry table, turned round: from places in the LLM's vocabulary to plug-in tokens.

    Attributes:
        targets: (u,) int64, the LLM tokens that can be carried to, ascending.
        sources: (m,) int64, plug-in tokens, those of one target side by side, in order of targets.
        starts: (u + 1,) int64, target k owns ``sources[starts[k] : starts[k + 1]]``; it may own none.
        first: (u,) int64, for each target its first source, V_s where it owns none.
        others: (o,) int64, all sources that are not the first of their target.
        other_slots: (o,) int64, the indices of their targets.
    """

    targets: Tensor
    sources: Tensor
    starts: Tensor
    first: Tensor
    others: Tensor
    other_slots: Tensor

    @classmethod
    def of(cls, carry: Tensor, further: Tensor, llm_width: int, device: torch.device) -> CarryLayout:
        """Lay out a carry table; places beyond the LLM's logits are dropped.

        Args:
            carry: (V_s,) int64, LLM token of each plug-in token, -1 where none.
            further: (f,) int64, LLM tokens that need a place too: those that continue a spelling.
            llm_width: V_l, the width of the logits.
            device: Where the tables go.
        """
        sources = ((carry >= 0) & (carry < llm_width)).nonzero().squeeze(1)
        wanted = torch.cat([carry[sources], further[further < llm_width]])
        targets, slots = wanted.unique(return_inverse=True)
        slots, order = slots[: len(sources)].sort(stable=True)
        sources = sources[order]
        starts = torch.searchsorted(slots, torch.arange(len(targets) + 1))
        owning = starts[1:] > starts[:-1]
        first = torch.full_like(targets, len(carry))
        first[owning] = sources[starts[:-1][owning]]
        is_other = torch.ones_like(sources, dtype=torch.bool)
        is_other[starts[:-1][owning]] = False
        tables = (targets, sources, starts, first, sources[is_other], slots[is_other])
        return cls(*(table.to(device) for table in tables))

    def slots_of(self, llm_ids: Tensor) -> Tensor:
        """(k,) int64 LLM tokens -> their indices in ``targets``, -1 for a token that has no place."""
        if len(self.targets) == 0:
            return torch.full_like(llm_ids, -1)
        places = torch.searchsorted(self.targets, llm_ids).clamp_(max=len(self.targets) - 1)
        return torch.where(self.targets[places] == llm_ids, places, -1)
