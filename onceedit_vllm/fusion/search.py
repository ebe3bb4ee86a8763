"""The zero-initialised search for a one-hot target, over one column instead of the whole map.

With the target at coordinate a* the loss is ``-log(softmax(x) @ c) / C`` with ``c = R_l[:, a*]``, and
its gradient ``-p_i (c_i - c_mean) / (c_mean C)`` with ``p = softmax(x)``: a step costs O(V), and AdamW
walks the very path of the dense search in :mod:`~onceedit_vllm.fusion.reference`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from onceedit_vllm.fusion.reference import BETAS, COSINE_STEPS, EPS, LOWEST_RATE, WEIGHT_DECAY

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.config import FusionConfig

# Stands for log 0 where the token is allowed: low enough for any temperature, finite for any sampler.
FLOOR = -1e4


def search_columns(columns: Tensor, allowed: Tensor, num_coordinates: int, config: FusionConfig) -> Tensor:
    """Search with the solver of the settings.

    Args:
        columns: (n, V) float32, R_l[:, a*] of each row.
        allowed: (n, V) bool; tokens that are not stay out of the search.
        num_coordinates: C, the width of R_l.
        config: Solver, steps and learning rate.

    Returns:
        (n, V) float32 logits, -inf where not allowed.
    """
    if config.solver == "exact":
        return exact_logits(columns, allowed)
    return adamw_logits(
        columns,
        allowed,
        num_coordinates,
        steps=config.search_steps,
        learning_rate=config.search_learning_rate,
    )


def exact_logits(columns: Tensor, allowed: Tensor) -> Tensor:
    """The search's limit: its minimum lies at the largest entry of the allowed column.

    The logits are ``log c``, at least :data:`FLOOR`; the lowest of the largest tokens is strictly first.
    """
    winner = columns.masked_fill(~allowed, -math.inf).argmax(dim=1, keepdim=True)
    logits = _strictly_first(columns.log().clamp_(min=FLOOR), winner)
    return logits.masked_fill_(~allowed, -math.inf)


def adamw_logits(
    columns: Tensor, allowed: Tensor, num_coordinates: int, *, steps: int, learning_rate: float
) -> Tensor:
    """The paper's iterate: AdamW from zeros under a cosine schedule (Eq. 9-10).

    Computed in float64: Adam levels large gradients, and float32 then orders them by its rounding.
    """
    c = columns.to(torch.float64).masked_fill_(~allowed, 0.0)
    x, first, second = torch.zeros_like(c), torch.zeros_like(c), torch.zeros_like(c)
    for step in range(steps):
        rate = _rate(step, learning_rate)
        p = x.masked_fill(~allowed, -math.inf).softmax(dim=1)
        mean = (p * c).sum(dim=1, keepdim=True)
        gradient = p.mul_(c - mean).div_(-mean * num_coordinates)
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        bias = (1 - BETAS[0] ** (step + 1), 1 - BETAS[1] ** (step + 1))
        divisor = second.sqrt().div_(math.sqrt(bias[1])).add_(EPS)
        x.mul_(1 - rate * WEIGHT_DECAY).addcdiv_(first, divisor, value=-rate / bias[0])
    x.masked_fill_(~allowed, -math.inf)
    return _strictly_first(x.to(columns.dtype), x.argmax(dim=1, keepdim=True))


def _strictly_first(logits: Tensor, winner: Tensor) -> Tensor:
    """Logits (n, V) with the winner (n, 1) above all others, where rounding has made some equal to it."""
    best = logits.gather(1, winner)
    below = torch.nextafter(best, torch.full_like(best, -math.inf))
    return torch.minimum(logits, below).scatter_(1, winner, best)


def _rate(step: int, learning_rate: float) -> float:
    lowest = LOWEST_RATE * learning_rate
    return lowest + (learning_rate - lowest) * (1 + math.cos(math.pi * step / COSINE_STEPS)) / 2
