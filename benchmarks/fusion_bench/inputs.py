"""Steps made up at random: from a plug-in and an LLM that know nothing to two that are certain."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """One batch of steps.

    Attributes:
        plugin_log_probs: (n, V_s) float32.
        llm_logits: (n, V_l) float32.
        alpha: (n,) float32.
    """

    plugin_log_probs: Tensor
    llm_logits: Tensor
    alpha: Tensor

    def to(self, device: torch.device) -> Inputs:
        """The same on another device."""
        return Inputs(*(tensor.to(device) for tensor in self))


def random_inputs(count: int, plugin_size: int, llm_size: int, seed: int) -> Inputs:
    """Normal logits with one token raised by 0 to 20; alpha uniform between 0 and 1."""
    generator = torch.Generator().manual_seed(seed)

    def logits(size: int) -> Tensor:
        values = 2 * torch.randn(count, size, generator=generator)
        raised = torch.randint(0, size, (count, 1), generator=generator)
        return values.scatter_add_(1, raised, 20 * torch.rand(count, 1, generator=generator))

    alpha = torch.rand(count, generator=generator)
    return Inputs(logits(plugin_size).log_softmax(dim=1), logits(llm_size), alpha)
