"""The paper's fusion and search, plain and slow: dense maps and autograd. The oracle of this room.

One row at a time; float32 or float64, whatever the inputs are. The switches are those of the
paper's ablation (Table 2): DeePEn is ``init="llm", target="fused", weight="fixed"``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

# DeePEn's public code. The learning rate falls along a cosine that is cut off half-way.
BETAS = (0.9, 0.999)
EPS = 1e-8
WEIGHT_DECAY = 0.01
COSINE_STEPS = 10
LOWEST_RATE = 0.25

Init = Literal["llm", "zeros"]
Target = Literal["fused", "onehot"]
Weight = Literal["fixed", "gate"]


def fuse(
    plugin_probs: Tensor, plugin_map: Tensor, llm_probs: Tensor, llm_map: Tensor, alpha: float
) -> Tensor:
    """Eq. 8: (V_s,), (V_s, C), (V_l,), (V_l, C) -> the fused distribution (C,)."""
    return alpha * (plugin_probs @ plugin_map) + (1 - alpha) * (llm_probs @ llm_map)


def augment(fused: Tensor) -> Tensor:
    """Eq. 11: one-hot at the largest coordinate, the lowest one of equals."""
    return torch.nn.functional.one_hot(fused.argmax(), len(fused)).to(fused.dtype)


def search(
    llm_map: Tensor,
    target: Tensor,
    start: Tensor,
    *,
    steps: int = 5,
    learning_rate: float = 0.15,
    allowed: Tensor | None = None,
) -> Tensor:
    """Eq. 9: the LLM's logits whose image under R_l comes close to the target.

    Args:
        llm_map: R_l, (V, C).
        target: (C,) distribution.
        start: (V,) logits to start from.
        steps: Steps of AdamW.
        learning_rate: The first step's.
        allowed: (V,) bool; the others are no part of the search and come out as -inf.

    Returns:
        (V,) logits.
    """
    num_coordinates = llm_map.shape[1]
    chosen = torch.ones(len(start), dtype=torch.bool) if allowed is None else allowed
    reduced = llm_map[chosen]
    # log 0 of a coordinate that no allowed token reaches would make the loss infinite.
    reached = (reduced > 0).any(dim=0)
    x = start[chosen].clone().requires_grad_()
    optimizer = torch.optim.AdamW([x], lr=learning_rate, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=COSINE_STEPS, eta_min=LOWEST_RATE * learning_rate
    )
    # KLDivLoss's mean reduction divides by every coordinate, reached or not.
    divergence = torch.nn.KLDivLoss(reduction="sum")
    for _ in range(steps):
        optimizer.zero_grad()
        image = (torch.softmax(x, dim=0) @ reduced[:, reached]).log()
        loss = divergence(image, target[reached]) / num_coordinates
        loss.backward()
        optimizer.step()
        schedule.step()
    logits = torch.full_like(start, -math.inf)
    logits[chosen] = x.detach()
    return logits


def fused_step(
    plugin_probs: Tensor,
    plugin_map: Tensor,
    llm_probs: Tensor,
    llm_map: Tensor,
    alpha: float,
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
    """One decoding step of the paper for one row.

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
        steps: Steps of the search.
        learning_rate: Of the search's first step.
        allowed: (V_l,) bool, tokens the search may use.
        aims: (C,) bool, coordinates that a one-hot target may be at. The paper knows no masks: with one,
            the coordinate of a forbidden token is no aim, or the search would settle for its neighbour.

    Returns:
        (V_l,) logits.
    """
    share = alpha if weight == "gate" else fixed_weight
    fused = fuse(plugin_probs, plugin_map, llm_probs, llm_map, share)
    open_fused = fused if aims is None else fused.masked_fill(~aims, -math.inf)
    aim = augment(open_fused) if target == "onehot" else fused
    tiny = torch.finfo(llm_probs.dtype).tiny
    start = torch.zeros_like(llm_probs) if init == "zeros" else llm_probs.clamp(min=tiny).log()
    return search(llm_map, aim, start, steps=steps, learning_rate=learning_rate, allowed=allowed)
