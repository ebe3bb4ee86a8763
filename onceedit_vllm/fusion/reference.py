"""The paper's fusion and search, plain and slow: dense maps and autograd. The oracle of all that is fast.

One row or a batch of rows, which do not share a loss; float32 or float64, whatever the inputs are. The
switches are those of the paper's ablation (Table 2): DeePEn is ``init="llm", target="fused",
weight="fixed"``. Shapes below are those of one row; a batch has n in front of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

from onceedit_vllm.dense.search import BETAS, COSINE_STEPS, EPS, LOWEST_RATE, WEIGHT_DECAY

if TYPE_CHECKING:
    from torch import Tensor

Init = Literal["llm", "zeros"]
Target = Literal["fused", "onehot"]
Weight = Literal["fixed", "gate"]


def fuse(
    plugin_probs: Tensor, plugin_map: Tensor, llm_probs: Tensor, llm_map: Tensor, alpha: float | Tensor
) -> Tensor:
    """Eq. 8: (V_s,), (V_s, C), (V_l,), (V_l, C), () -> the fused distribution (C,)."""
    share = torch.as_tensor(alpha, dtype=llm_probs.dtype, device=llm_probs.device).unsqueeze(-1)
    return share * (plugin_probs @ plugin_map) + (1 - share) * (llm_probs @ llm_map)


def augment(fused: Tensor) -> Tensor:
    """Eq. 11: one-hot at the largest coordinate, the lowest one of equals."""
    return torch.nn.functional.one_hot(fused.argmax(dim=-1), fused.shape[-1]).to(fused.dtype)


def search(
    llm_map: Tensor,
    target: Tensor,
    start: Tensor,
    *,
    steps: int = 5,
    learning_rate: float = 0.15,
    allowed: Tensor | None = None,
    num_coordinates: int | None = None,
) -> Tensor:
    """Eq. 9: the LLM's logits whose image under R_l comes close to the target.

    Args:
        llm_map: R_l, (V, C).
        target: (C,) distribution.
        start: (V,) logits to start from.
        steps: Steps of AdamW.
        learning_rate: The first step's.
        allowed: (V,) bool, of all rows; the others are no part of the search and come out as -inf.
        num_coordinates: C where some columns are left out. Without weight in the target they have no part
            in the loss but its mean.

    Returns:
        (V,) logits.
    """
    width = num_coordinates or llm_map.shape[1]
    if allowed is None:
        return _descend(llm_map, target, start, width, steps, learning_rate)
    logits = torch.full_like(start, -math.inf)
    reduced = start[..., allowed]
    logits[..., allowed] = _descend(llm_map[allowed], target, reduced, width, steps, learning_rate)
    return logits


def _descend(
    llm_map: Tensor, target: Tensor, start: Tensor, num_coordinates: int, steps: int, learning_rate: float
) -> Tensor:
    x = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([x], lr=learning_rate, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=COSINE_STEPS, eta_min=LOWEST_RATE * learning_rate
    )
    # KLDivLoss's mean reduction, of a row of its own.
    divergence = torch.nn.KLDivLoss(reduction="sum")
    for _ in range(steps):
        optimizer.zero_grad()
        # log 0 of a coordinate that no allowed token reaches would make the loss infinite.
        image = (torch.softmax(x, dim=-1) @ llm_map).clamp(min=torch.finfo(x.dtype).tiny).log()
        loss = divergence(image, target) / num_coordinates
        loss.backward()
        optimizer.step()
        schedule.step()
    return x.detach()


def fused_step(
    plugin_probs: Tensor,
    plugin_map: Tensor,
    llm_probs: Tensor,
    llm_map: Tensor,
    alpha: float | Tensor,
    *,
    init: Init = "zeros",
    target: Target = "onehot",
    weight: Weight = "gate",
    fixed_weight: float = 0.5,
    steps: int = 5,
    learning_rate: float = 0.15,
    allowed: Tensor | None = None,
    aims: Tensor | None = None,
) -> Tensor:
    """One decoding step of the paper: (V_l,) logits.

    Args:
        plugin_probs: p_s, (V_s,).
        plugin_map: R_s, (V_s, C).
        llm_probs: p_l, (V_l,).
        llm_map: R_l, (V_l, C).
        alpha: The gate's weight.
        init: Start the search at the LLM's distribution (DeePEn) or at zeros (Eq. 10).
        target: Aim at the fused distribution or at its one-hot (Eq. 11).
        weight: Weigh by alpha, or always by ``fixed_weight``.
        fixed_weight: The plug-in's share under ``weight="fixed"``.
        steps: Of the search.
        learning_rate: Of the search's first step.
        allowed: (V_l,) bool, tokens the search may use.
        aims: (C,) bool, coordinates for a one-hot target: without them it may be at a forbidden token's.
    """
    share = alpha if weight == "gate" else fixed_weight
    fused = fuse(plugin_probs, plugin_map, llm_probs, llm_map, share)
    aim = fused if aims is None else fused.masked_fill(~aims, -math.inf)
    aim = augment(aim) if target == "onehot" else fused
    lowest = torch.finfo(llm_probs.dtype).tiny
    start = torch.zeros_like(llm_probs) if init == "zeros" else llm_probs.clamp(min=lowest).log()
    return search(llm_map, aim, start, steps=steps, learning_rate=learning_rate, allowed=allowed)
