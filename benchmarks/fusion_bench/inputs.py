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


#: By how much one token's logit is raised, for plug-in and LLM, and what alpha lies between.
RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # Behind an open gate: the plug-in is certain of the edit, the LLM may be anything.
    "gated": ((20, 30), (0, 20), (0.9, 1)),
    # Both from clueless to certain, any weight: what the bounds find hardest.
    "mixed": ((0, 20), (0, 20), (0, 1)),
}


def random_inputs(count: int, plugin_size: int, llm_size: int, seed: int, family: str = "mixed") -> Inputs:
    """Normal logits of deviation 2 with one token raised, by the :data:`RANGES` of a family."""
    generator = torch.Generator().manual_seed(seed)
    plugin_range, llm_range, alpha_range = RANGES[family]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    def logits(size: int, bounds: tuple[float, float]) -> Tensor:
        values = 2 * torch.randn(count, size, generator=generator)
        raised = torch.randint(0, size, (count, 1), generator=generator)
        return values.scatter_add_(1, raised, uniform(*bounds, count, 1))

    log_probs = logits(plugin_size, plugin_range).log_softmax(dim=1)
    return Inputs(log_probs, logits(llm_size, llm_range), uniform(*alpha_range, count))
