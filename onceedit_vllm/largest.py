"""The largest entries of long rows: exactly what torch finds, in a tenth of the time on a CPU.

One pass over a row for the maxima of its blocks tells which blocks matter; only those are looked into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_TOP_BLOCK = 64
_MAX_BLOCK = 512
# Rows shorter than this many blocks are not worth the book-keeping.
_FEWEST_BLOCKS = 64


def top_k(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Like ``values.topk(k, dim=1)``: the k largest entries lie in the k blocks of largest maxima.

    Args:
        values: (n, size), any strides, no NaN.
        k: At most ``size``.

    Returns:
        (n, k) values, descending, and (n, k) int64 indices; of equal values any.
    """
    num_blocks = values.shape[1] // _TOP_BLOCK
    if values.is_cuda or num_blocks < max(k, _FEWEST_BLOCKS):
        top = values.topk(k, dim=1)
        return top.values, top.indices
    maxima = _block_maxima(values, _TOP_BLOCK)
    indices = _inside(values, maxima.topk(k, dim=1).indices, _TOP_BLOCK)
    top = values.gather(1, indices).topk(k, dim=1)
    return top.values, indices.gather(1, top.indices)


def first_max(values: Tensor) -> tuple[Tensor, Tensor]:
    """Like ``values.max(dim=1)``: (n,) maxima and (n,) int64 indices, of equal values the first.

    Args:
        values: (n, size) with ``size`` at least 1. A row with NaN has the maximum NaN and any index.
    """
    num_blocks = values.shape[1] // _MAX_BLOCK
    if values.is_cuda or num_blocks < _FEWEST_BLOCKS:
        largest = values.max(dim=1)
        return largest.values, largest.indices
    maxima = _block_maxima(values, _MAX_BLOCK)
    indices = _inside(values, maxima.argmax(dim=1, keepdim=True), _MAX_BLOCK)
    largest = values.gather(1, indices).max(dim=1)
    return largest.values, indices.gather(1, largest.indices[:, None])[:, 0]


def _block_maxima(values: Tensor, block: int) -> Tensor:
    num_blocks = values.shape[1] // block
    return values[:, : num_blocks * block].reshape(len(values), num_blocks, block).amax(dim=2)


def _inside(values: Tensor, blocks: Tensor, block: int) -> Tensor:
    """Indices of the entries of some blocks, and of those behind the last whole block."""
    inside = (blocks[:, :, None] * block + torch.arange(block)).flatten(1)
    tail = torch.arange(values.shape[1] // block * block, values.shape[1])
    return torch.cat([inside, tail.expand(len(values), -1)], dim=1)
