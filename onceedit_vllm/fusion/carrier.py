"""The plug-in's side of fusion: its distribution over its own tokens, carried to the LLM's."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.fusion.carry_layout import CarryLayout
from onceedit_vllm.fusion.lists import Lists
from onceedit_vllm.fusion.owed import OwedRows, SpellingBook, owe_inplace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from onceedit_vllm.alignment.align import Alignment
    from onceedit_vllm.alignment.spelling import Spellings
    from onceedit_vllm.fusion.owed import Owed


class Carrier:
    """Carries what one plug-in says to the vocabulary of one LLM.

    Needs two tables and two widths, no models and no tokenizers, so that it can live in another process
    than the LLM. Nothing in it waits for a GPU or has a shape that depends on data, so that carrying can
    be captured in a CUDA graph once it has been done.
    """

    def __init__(
        self,
        carry: Tensor,
        spellings: Spellings,
        llm_width: int,
        plugin_width: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Lay out the tables.

        Args:
            carry: Int64, LLM token of each plug-in token, -1 where none.
            spellings: Plug-in tokens that the LLM writes in several tokens.
            llm_width: V_l, the width of the LLM's logits; tokens beyond it are dropped.
            plugin_width: V_s, the width of the plug-in's logits, padded beyond its vocabulary or not.
            device: Of the plug-in's distributions.
        """
        self._device = torch.device(device)
        self._plugin_width = plugin_width
        #: What the LLM writes in several tokens: asked what is owed.
        self.book = SpellingBook(spellings, carry)
        carry = carry[:plugin_width]
        carry = pad(carry, (0, plugin_width - len(carry)), value=-1)
        self._layout = CarryLayout.of(carry, self.book.targets, llm_width, self._device)
        self._carry = _path_of(self._device)

    @classmethod
    def of(
        cls, alignment: Alignment, llm_width: int, plugin_width: int, device: torch.device | str = "cpu"
    ) -> Carrier:
        """With the tables of an alignment."""
        return cls(alignment.carry, alignment.spellings, llm_width, plugin_width, device)

    @property
    def targets(self) -> Tensor:
        """(u,) int64, the LLM tokens of every whole list, ascending."""
        return self._layout.targets

    @torch.no_grad()
    def carry(self, log_probs: Tensor, owed: Sequence[Owed | None] | None = None) -> Lists:
        """Whole lists: the plug-in's probability on every LLM token that it can say.

        Probability of tokens without text is dropped: neither listed nor in the tail. A row with NaN or
        +inf in it, or whose debts hold NaN, gets the tail NaN.

        Args:
            log_probs: (n, V_s), any float dtype and strides.
            owed: Per row, the rest of a plug-in token that the LLM writes in several tokens.

        Returns:
            (n, u) lists, their tokens the very memory of ``targets`` at every call.

        Raises:
            BadInputError: ``log_probs`` has another width than was said.
        """
        if log_probs.shape[1] != self._plugin_width:
            raise BadInputError(
                f"log_probs is {log_probs.shape[1]} wide, but this carrier was made for a plug-in of "
                f"{self._plugin_width} logits; make one for every width"
            )
        debts = None if owed is None else OwedRows.of(owed, self._layout)
        return self._carry(log_probs.to(self._device, torch.float32), self._layout, debts)

    def bytes_held(self) -> int:
        """Bytes of the tables."""
        return sum(table.nbytes for table in self._layout)


def carry_rows(log_probs: Tensor, layout: CarryLayout, owed: OwedRows | None = None) -> Lists:
    """Vectorised torch for CPUs.

    Args:
        log_probs: (n, V_s), any float dtype and strides.
        layout: The carry table.
        owed: What the plug-in's last tokens still lack.
    """
    mass = torch.empty(len(log_probs), len(layout.targets))
    probs = torch.empty(log_probs.shape[1] + 1)
    probs[-1] = 0.0  # of the targets without a source
    # Row by row: what one pass leaves in a processor's caches is there for the next.
    for row, carried in zip(log_probs, mass, strict=True):
        torch.exp(row.to(torch.float32), out=probs[:-1])
        # Nearly all targets have one source: picking it costs less than adding all up.
        torch.index_select(probs, 0, layout.first, out=carried)
        carried.index_add_(0, layout.other_slots, probs.index_select(0, layout.others))
    good = log_probs.amax(dim=1) < math.inf  # False for NaN as well
    if owed is not None:
        owe_inplace(mass, owed)
        good &= ~(owed.weight + owed.mass.sum(dim=1)).isnan()
    tail = torch.zeros(len(mass)).masked_fill_(~good, math.nan)
    return Lists(layout.targets.expand(len(mass), -1), mass, tail, True)


def _path_of(device: torch.device) -> Callable[..., Lists]:
    """How a device carries: the one place where that is chosen. Both come to the same."""
    if device.type == "cuda":
        from onceedit_vllm.fusion import carry_kernels

        return carry_kernels.carry_rows
    return carry_rows
