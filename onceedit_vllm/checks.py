"""Checks of tensors that were read from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def check_tensor(
    tensor: torch.Tensor,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    *,
    within: tuple[int, int] | None = None,
) -> torch.Tensor:
    """The tensor itself, once it is seen to be what was expected.

    Args:
        tensor: As read.
        dtype: Expected.
        shape: Expected.
        within: Smallest value that may occur, and one more than the largest.

    Raises:
        ValueError: It is something else.
    """
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise ValueError(f"{dtype} {shape} expected, found {tensor.dtype} {tuple(tensor.shape)}")
    if within is not None and tensor.numel():
        least, most = int(tensor.min()), int(tensor.max())
        if least < within[0] or most >= within[1]:
            raise ValueError(f"values from {within[0]} to {within[1] - 1} expected, found {least} to {most}")
    return tensor
