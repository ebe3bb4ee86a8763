"""The zero-initialised search for a one-hot target, over one column instead of the whole map.

With the target at coordinate a* the loss is ``-log(softmax(x) @ c) / C`` with ``c = R_l[:, a*]``, and
its gradient ``-p_i (c_i - c_mean) / (c_mean C)`` with ``p = softmax(x)``: a step costs O(V), and AdamW
walks the very path of the dense search (the oracle in ``fusion/reference.py``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# DeePEn's public code. The learning rate falls along a cosine that is cut off half-way.
BETAS = (0.9, 0.999)
EPS = 1e-8
WEIGHT_DECAY = 0.01
COSINE_STEPS = 10
LOWEST_RATE = 0.25
# Stands for log 0 where the token is allowed: low enough for any temperature, finite for any sampler.
FLOOR = -1e4
# Entries of columns walked at once on a GPU; a walk holds eight float64 numbers for each.
_WALKED_AT_ONCE = 2**22


def exact_tokens(columns: Tensor, allowed: Tensor) -> Tensor:
    """The search's limit: the loss is -log of a linear function, least at the largest allowed entry.

    Args:
        columns: (n, V) float32, R_l[:, a*] of each row.
        allowed: (n, V) bool.

    Returns:
        (n,) int64, the lowest of the best tokens.
    """
    return columns.masked_fill(~allowed, -math.inf).argmax(dim=1)


def adamw_logits(
    columns: Tensor, copies: Tensor, num_coordinates: int, *, steps: int, learning_rate: float
) -> Tensor:
    """The paper's iterate: AdamW from zeros under a cosine schedule (Eq. 9-10).

    Tokens of equal entries walk together, so they may be given once, with their number. Computed in
    float64: Adam levels large gradients, and float32 then orders them by its rounding.

    Args:
        columns: (n, V) float32 or float64, R_l[:, a*] of each row, or its distinct entries.
        copies: (n, V) bool or int, how many tokens have this entry; 0 keeps it out of the search.
        num_coordinates: C, the width of R_l.
        steps: Steps of AdamW.
        learning_rate: The first step's.

    Returns:
        (n, V) logits of the columns' dtype, -inf where there are no copies, one entry strictly first.
    """
    # One at a time on a CPU, whose caches hold one walk; on a GPU as many as take 256 MiB.
    size = max(1, _WALKED_AT_ONCE // columns.shape[1]) if columns.is_cuda else 1
    walked = [
        _walk(c.double(), count.double(), num_coordinates, steps, learning_rate)
        for c, count in zip(columns.split(size), copies.split(size), strict=True)
    ]
    logits = torch.cat([x.to(columns.dtype) for x in walked])
    return _strictly_first(logits, torch.cat([x.argmax(dim=1, keepdim=True) for x in walked]))


def _walk(c: Tensor, copies: Tensor, num_coordinates: int, steps: int, learning_rate: float) -> Tensor:
    """(k, V) float64 columns and copies -> the iterate, (k, V) float64."""
    x, first, second = torch.zeros_like(c), torch.zeros_like(c), torch.zeros_like(c)
    outside = copies == 0
    for step in range(steps):
        rate = _rate(step, learning_rate)
        p = x.masked_fill(outside, -math.inf)
        p = p.sub_(p.amax(dim=1, keepdim=True)).exp_()
        p.div_((p * copies).sum(dim=1, keepdim=True))
        mean = (p * c).mul_(copies).sum(dim=1, keepdim=True)
        gradient = p.mul_(c - mean).div_(-mean * num_coordinates)
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        bias = (1 - BETAS[0] ** (step + 1), 1 - BETAS[1] ** (step + 1))
        divisor = second.sqrt().div_(math.sqrt(bias[1])).add_(EPS)
        x.mul_(1 - rate * WEIGHT_DECAY).addcdiv_(first, divisor, value=-rate / bias[0])
    return x.masked_fill_(outside, -math.inf)


def _strictly_first(logits: Tensor, winner: Tensor) -> Tensor:
    """Logits (n, V) with the winner (n, 1) above all others, where rounding has made some equal to it."""
    best = logits.gather(1, winner)
    below = torch.nextafter(best, torch.full_like(best, -math.inf))
    return torch.minimum(logits, below).scatter_(1, winner, best)


def _rate(step: int, learning_rate: float) -> float:
    lowest = LOWEST_RATE * learning_rate
    return lowest + (learning_rate - lowest) * (1 + math.cos(math.pi * step / COSINE_STEPS)) / 2
