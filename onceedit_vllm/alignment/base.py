"""The one interface of the relative maps R_s and R_l (Eq. 4, 15-16)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from onceedit_vllm.config import MapKind


class RelativeMap(Protocol):
    """A row-stochastic map from one vocabulary (V tokens) to the relative space (C coordinates).

    Coordinates 0..A-1 are the anchors, in the order of :class:`~onceedit_vllm.alignment.anchors.Anchors`;
    `textual` maps append private coordinates of LLM-only tokens (C = A + private), the same C on
    both sides of a pair.
    """

    kind: MapKind
    vocab_size: int
    num_coordinates: int

    def rows(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Rows of R: (k,) int64 -> (k, C) float32."""

    def columns(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Columns of R, transposed: (k,) int64 -> (k, V) float32."""

    def project(self, probs: torch.Tensor) -> torch.Tensor:
        """``probs @ R`` without holding R: (n, V) float32 -> (n, C) float32."""

    def bytes_held(self) -> int:
        """Bytes of tensors this map keeps in memory."""
