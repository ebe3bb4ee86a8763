"""Projecting two distributions into the relative space and fusing them there (Eq. 8)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.base import RelativeMap
    from onceedit_vllm.alignment.dense import DenseMap

# Rows gathered per distribution before the dense product is the better deal.
_TOP_SIZES = (32, 256, 2048, 8192, 32768)
# Float32 rounding of the sums below, relative to the largest coordinate.
_ROUNDING = 1e-5


class Peak(NamedTuple):
    """The largest coordinate of a fused distribution.

    Attributes:
        coordinate: Its index, the lowest one of equals.
        certified: Whether a few rows were enough to be sure; else the product was made in full.
    """

    coordinate: int
    certified: bool


def fused_distribution(
    plugin_map: RelativeMap, llm_map: RelativeMap, plugin_probs: Tensor, llm_probs: Tensor, alpha: Tensor
) -> Tensor:
    """Eq. 8, exact: (n, V_s) and (n, V_l) float32, alpha (n,) -> (n, C) float32."""
    weight = alpha[:, None]
    fused = plugin_map.project(weight * plugin_probs)
    return fused.add_(llm_map.project((1 - weight) * llm_probs))


def fused_peak(
    plugin_map: DenseMap, llm_map: DenseMap, plugin_probs: Tensor, llm_probs: Tensor, allowed: Tensor
) -> Peak:
    """The largest allowed coordinate of ``plugin_probs @ R_s + llm_probs @ R_l``, never a guess.

    The most probable tokens' rows are summed; all other tokens together, of mass r, add between
    r times the smallest and r times the largest entry of a column. Where that cannot change the
    winner it is certified; otherwise more rows are taken, at last all.

    Args:
        plugin_map: R_s.
        llm_map: R_l.
        plugin_probs: (V_s,) float32, already weighted by alpha.
        llm_probs: (V_l,) float32, already weighted by 1 - alpha.
        allowed: (A,) bool, at least one True.
    """
    sides = ((plugin_map, plugin_probs), (llm_map, llm_probs))
    sorted_sides = [
        (relative_map, *probs.topk(min(_TOP_SIZES[-1], len(probs))), float(probs.sum()))
        for relative_map, probs in sides
    ]
    known = torch.zeros(llm_map.num_coordinates, device=llm_probs.device)
    taken = 0
    for size in _TOP_SIZES:
        low, high = torch.zeros_like(known), torch.zeros_like(known)
        for relative_map, values, ids, total in sorted_sides:
            new = slice(taken, size)
            part = torch.zeros(relative_map.vocab_size, device=known.device)
            part[ids[new]] = values[new]
            known += relative_map.project(part[None])[0]
            rest = max(0.0, total - float(values[:size].sum()))
            low.add_(relative_map.smallest, alpha=rest)
            high.add_(relative_map.largest, alpha=rest)
        taken = size
        certain = _certain_peak(known + low, known + high, allowed)
        if certain is not None:
            return Peak(certain, certified=True)
    fused = plugin_map.project(plugin_probs[None]).add_(llm_map.project(llm_probs[None]))[0]
    return Peak(int(fused.masked_fill(~allowed, -math.inf).argmax()), certified=False)


def _certain_peak(lower: Tensor, upper: Tensor, allowed: Tensor) -> int | None:
    """The coordinate whose lower bound beats all other upper bounds, if there is one."""
    lower, upper = lower.masked_fill(~allowed, -math.inf), upper.masked_fill(~allowed, -math.inf)
    best = int(lower.argmax())
    rivals = upper.clone()
    rivals[best] = -math.inf
    margin = _ROUNDING * float(upper[best])
    return best if float(lower[best]) > float(rivals.max()) + margin else None
