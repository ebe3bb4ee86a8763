"""A relative map made of embeddings (Eq. 15-16), without ever holding it.

A row of R is ``softmax(scale_v * cos(e_v, e_anchor))``. Kept are the embeddings and a few numbers
per token and per anchor; rows and columns are one matrix-vector product away, single entries one dot
product, and what a sum of rows can be at most and at least is known without either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from onceedit_vllm.checks import check_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.config import DenseKind

# What is computed, and kept in the alignment cache; the rest is read off the model.
STATISTICS = (
    "center",
    "inverse_norm",
    "scale",
    "log_normaliser",
    "peaks",
    "peak_values",
    "others",
    "row_smallest",
    "smallest",
    "largest",
    "own_token",
)
#: Entries of each row whose place and value are kept.
NUM_PEAKS = 8

# A chunk of the map: 2**23 float32 entries are 32 MiB.
_CHUNK_ENTRIES = 2**23


@dataclass(frozen=True)
class DenseMap:
    """One of the kinds ``eq16``, ``deepen`` and ``calibrated``.

    Attributes:
        kind: Which scale the cosines are multiplied by.
        embeddings: (V, d) bfloat16, float16 or float32, the model's own input embeddings.
        anchor_ids: (A,) int64.
        center: (d,) float32, subtracted from every embedding before the cosine.
        inverse_norm: (V,) float32, 1/|e_v - center|; 0 for a zero row.
        scale: (V,) float32, what the cosines of row v are multiplied by.
        log_normaliser: (V,) float32, logsumexp over the anchors of the scaled cosines.
        peaks: (V, m) int32, the coordinates of the m largest entries of each row.
        peak_values: (V, m) float32, those entries, descending.
        others: (V,) float32, the largest entry of each row that is not among them; 0 if there is none.
        row_smallest: (V,) float32, the smallest entry of each row.
        smallest: (A,) float32, the smallest entry of each column.
        largest: (A,) float32, the largest entry of each column.
        own_token: (A,) int64, the token that holds it (lowest id of equals).
    """

    kind: DenseKind
    embeddings: Tensor
    anchor_ids: Tensor
    center: Tensor
    inverse_norm: Tensor
    scale: Tensor
    log_normaliser: Tensor
    peaks: Tensor
    peak_values: Tensor
    others: Tensor
    row_smallest: Tensor
    smallest: Tensor
    largest: Tensor
    own_token: Tensor

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.embeddings)

    @property
    def num_coordinates(self) -> int:
        """A: one coordinate per anchor."""
        return len(self.anchor_ids)

    def rows(self, token_ids: Tensor) -> Tensor:
        """Rows of R: (k,) int64 -> (k, A) float32."""
        scaled = self.scaled_cosines(token_ids, self.unit(self.anchor_ids))
        return scaled.sub_(self.log_normaliser[token_ids, None]).exp_()

    def entries(self, token_ids: Tensor, coordinates: Tensor) -> Tensor:
        """Single entries of R, row by row: (n, k) and (n, c) int64 -> (n, k, c) float32."""
        scaled = self.unit(token_ids).mul_(self.scale[token_ids].unsqueeze(-1))
        cosines = scaled @ self.unit(self.anchor_ids[coordinates]).mT
        return cosines.sub_(self.log_normaliser[token_ids].unsqueeze(-1)).exp_()

    def columns(self, coordinates: Tensor) -> Tensor:
        """Columns of R, transposed: (k,) int64 -> (k, V) float32."""
        anchors = self.unit(self.anchor_ids[coordinates])
        columns = torch.empty(len(coordinates), self.vocab_size, device=self.embeddings.device)
        for ids in chunks(self.vocab_size, self.embeddings.shape[1], columns.device):
            scaled = self.scaled_cosines(ids, anchors)
            columns[:, ids] = scaled.sub_(self.log_normaliser[ids, None]).exp_().T
        return columns

    def project(self, probs: Tensor) -> Tensor:
        """``probs @ R`` in chunks of rows: (n, V) float32 -> (n, A) float32.

        Exact; tokens without probability in any of the n rows are skipped.
        """
        used = (probs != 0).any(dim=0).nonzero().squeeze(1)
        anchors = self.unit(self.anchor_ids)
        projected = probs.new_zeros(len(probs), self.num_coordinates)
        for part in chunks(len(used), self.num_coordinates, probs.device):
            ids = used[part]
            rows = self.scaled_cosines(ids, anchors).sub_(self.log_normaliser[ids, None]).exp_()
            projected.addmm_(probs[:, ids], rows)
        return projected

    def self_mass(self) -> Tensor:
        """(A,) float32: the probability that each anchor's row gives to the anchor itself."""
        # The cosine of an anchor with itself is 1 (0 where its embedding is the center).
        cosine = (self.inverse_norm[self.anchor_ids] > 0).to(torch.float32)
        return (self.scale[self.anchor_ids] * cosine - self.log_normaliser[self.anchor_ids]).exp()

    def unit(self, token_ids: Tensor) -> Tensor:
        """Centred embeddings of length 1: (...) int64 -> (..., d) float32."""
        centred = self.embeddings[token_ids].to(torch.float32).sub_(self.center)
        return centred.mul_(self.inverse_norm[token_ids].unsqueeze(-1))

    def scaled_cosines(self, token_ids: Tensor, anchors: Tensor) -> Tensor:
        """(k,) int64 and (m, d) unit embeddings -> (k, m) float32, a new tensor."""
        return self.unit(token_ids).mul_(self.scale[token_ids, None]) @ anchors.T

    @cached_property
    def rounding(self) -> float:
        """Relative error of an entry in float32: of its exponent, a scaled dot product less a logarithm."""
        size = float(self.scale.abs().max()) * math.sqrt(self.embeddings.shape[1])
        return 2**-23 * (size + float(self.log_normaliser.abs().max()))

    def bytes_held(self) -> int:
        """Bytes of the embeddings and the statistics."""
        return sum(t.numel() * t.element_size() for t in vars(self).values() if isinstance(t, torch.Tensor))

    def statistics(self) -> dict[str, Tensor]:
        """The tensors named by :data:`STATISTICS`."""
        return {name: getattr(self, name) for name in STATISTICS}

    def check(self) -> DenseMap:
        """The map itself, once its statistics are seen to be of its embeddings and anchors.

        Raises:
            ValueError: One has another dtype or shape, or names an anchor or token that there is not.
        """
        size, num_anchors = self.vocab_size, self.num_coordinates
        listed = (size, min(NUM_PEAKS, num_anchors))
        shapes: dict[str, tuple[int, ...]] = {"center": (self.embeddings.shape[1],), "peak_values": listed}
        shapes |= dict.fromkeys(
            ("inverse_norm", "scale", "log_normaliser", "others", "row_smallest"), (size,)
        )
        shapes |= dict.fromkeys(("smallest", "largest"), (num_anchors,))
        for name, shape in shapes.items():
            check_tensor(getattr(self, name), torch.float32, shape)
        check_tensor(self.peaks, torch.int32, listed, within=(0, num_anchors))
        check_tensor(self.own_token, torch.int64, (num_anchors,), within=(0, size))
        return self

    def to(self, device: torch.device) -> DenseMap:
        """The same map on another device."""
        return replace(
            self,
            embeddings=self.embeddings.to(device),
            anchor_ids=self.anchor_ids.to(device),
            **{name: tensor.to(device) for name, tensor in self.statistics().items()},  # type: ignore[arg-type]
        )


def chunks(count: int, width: int, device: torch.device) -> Iterator[Tensor]:
    """Ids 0..count-1 in runs whose (run, width) float32 block stays within 32 MiB."""
    size = max(1, _CHUNK_ENTRIES // max(1, width))
    for start in range(0, count, size):
        yield torch.arange(start, min(count, start + size), device=device)
