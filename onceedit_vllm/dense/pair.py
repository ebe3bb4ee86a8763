"""The two dense maps of a pair of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.dense.maps import STATISTICS, DenseMap
from onceedit_vllm.dense.statistics import Progress, build_dense_map

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.config import DenseKind

# How the cache calls the two.
_NAMES = ("plugin", "llm")


@dataclass(frozen=True)
class DenseMaps:
    """R_s and R_l, of the same kind and over the same anchors.

    Attributes:
        plugin_map: R_s, from the unedited plug-in's embeddings.
        llm_map: R_l.
    """

    plugin_map: DenseMap
    llm_map: DenseMap

    @classmethod
    def build(
        cls,
        kind: DenseKind,
        tables: Sequence[Tensor],
        anchor_ids: Sequence[Tensor],
        *,
        self_mass: float = 0.9,
        advance: Progress = lambda rows: None,
    ) -> DenseMaps:
        """Measure both maps, on a GPU where there is one; they come back on the CPU.

        Args:
            kind: See :func:`~onceedit_vllm.dense.statistics.build_dense_map`.
            tables: (V_s, d_s) and (V_l, d_l) embeddings.
            anchor_ids: (A,) int64 of each vocabulary.
            self_mass: Of ``calibrated``.
            advance: Called with the number of rows done since the last call.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        plugin_map, llm_map = (
            build_dense_map(kind, table.to(device), ids.to(device), self_mass=self_mass, advance=advance).to(
                torch.device("cpu")
            )
            for table, ids in zip(tables, anchor_ids, strict=True)
        )
        return cls(plugin_map, llm_map)

    @classmethod
    def restore(
        cls,
        kind: DenseKind,
        tables: Sequence[Tensor],
        anchor_ids: Sequence[Tensor],
        tensors: dict[str, Tensor],
    ) -> DenseMaps:
        """The inverse of :meth:`tensors`, with the embeddings and anchors that these do not hold.

        Raises:
            KeyError: A tensor is missing.
            ValueError: One does not fit the embeddings or the anchors.
        """
        plugin_map, llm_map = (
            DenseMap(kind=kind, embeddings=table, anchor_ids=ids, **_statistics(name, tensors)).check()
            for name, table, ids in zip(_NAMES, tables, anchor_ids, strict=True)
        )
        return cls(plugin_map, llm_map)

    @property
    def kind(self) -> DenseKind:
        """Of both maps."""
        return self.llm_map.kind

    def tensors(self) -> dict[str, Tensor]:
        """The statistics of both, by name; the embeddings stay in the models' own files."""
        maps = zip(_NAMES, (self.plugin_map, self.llm_map), strict=True)
        return {f"{name}.{key}": value for name, each in maps for key, value in each.statistics().items()}

    def bytes_held(self) -> int:
        """Bytes of embeddings and statistics."""
        return self.plugin_map.bytes_held() + self.llm_map.bytes_held()


def _statistics(name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {key: tensors[f"{name}.{key}"] for key in STATISTICS}
