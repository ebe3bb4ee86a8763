"""Projecting two distributions into the relative space and fusing them there (Eq. 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.base import RelativeMap


def fused_distribution(
    plugin_map: RelativeMap, llm_map: RelativeMap, plugin_probs: Tensor, llm_probs: Tensor, alpha: Tensor
) -> Tensor:
    """Eq. 8, exact: (n, V_s) and (n, V_l) float32, alpha (n,) -> (n, C) float32."""
    weight = alpha[:, None]
    fused = plugin_map.project(weight * plugin_probs)
    return fused.add_(llm_map.project((1 - weight) * llm_probs))
