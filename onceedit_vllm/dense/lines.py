"""Rows and columns of a dense relative map, made on demand and kept for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from cachetools import LRUCache

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.dense.maps import DenseMap


class LineCache:
    """The lines used last, up to a number of bytes.

    Args:
        compute: (k,) int64 -> (k, width) float32, the lines themselves.
        max_bytes: What may be kept. Lines that do not fit are computed every time.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor], max_bytes: int) -> None:
        self._compute = compute
        self._lines: LRUCache[int, Tensor] = LRUCache(max_bytes, getsizeof=lambda line: line.nbytes)
        self.hits = 0
        self.misses = 0

    def get(self, ids: Tensor) -> Tensor:
        """(k,) int64 -> (k, width) float32, a new tensor."""
        wanted = ids.tolist()
        found = {i: line for i in wanted if (line := self._lines.get(i)) is not None}
        missing = list(dict.fromkeys(i for i in wanted if i not in found))
        self.misses += len(missing)
        self.hits += len(wanted) - len(missing)
        if missing:
            made = self._compute(torch.tensor(missing, device=ids.device))
            found.update(zip(missing, made, strict=True))
            for i in missing:
                self._keep(i, found[i])
        return torch.stack([found[i] for i in wanted]) if wanted else self._compute(ids)

    @property
    def bytes_held(self) -> int:
        """Bytes of the lines kept."""
        return int(self._lines.currsize)

    def _keep(self, i: int, line: Tensor) -> None:
        if line.nbytes <= self._lines.maxsize:
            # A copy: a view would keep all lines of its batch alive.
            self._lines[i] = line.clone()


class MapLines:
    """A dense map with the rows and columns that were asked for last.

    Attributes:
        relative_map: The map itself.
        rows: Rows by token id, (A,) each.
        columns: Columns by coordinate, (V,) each.
    """

    def __init__(self, relative_map: DenseMap, max_bytes: int) -> None:
        """Share the bytes evenly between rows and columns."""
        self.relative_map = relative_map
        self.rows = LineCache(relative_map.rows, max_bytes // 2)
        self.columns = LineCache(relative_map.columns, max_bytes // 2)

    def bytes_held(self) -> int:
        """Bytes of the map and of the lines kept."""
        return self.relative_map.bytes_held() + self.rows.bytes_held + self.columns.bytes_held
