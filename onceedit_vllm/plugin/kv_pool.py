"""The keys and values of all slots, behind the cache interface of transformers.

transformers sees an ordinary left-padded batch: all rows end at the same column, the columns before
a row's first token are masked. So its own code makes every mask (causal, sliding window, chunked)
and every position-dependent bias, and the last token of every row is the last column.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from onceedit_vllm.plugin.kv_slots import BLOCK


class BatchPlan(NamedTuple):
    """Where one batch reads and writes the pool.

    Attributes:
        read_rows: (n * kv_length,) int64: the pool row of every column of every batch row.
        write_rows: (m,) int64: the pool row of every new token.
        write_from: (m,) int64: its place among the (n * query_length) tokens of the batch.
        kv_length: Columns, old and new.
        query_length: Columns that are new.
        num_rows: Rows that the pool must have.
    """

    read_rows: torch.Tensor
    write_rows: torch.Tensor
    write_from: torch.Tensor
    kv_length: int
    query_length: int
    num_rows: int


class KVPool:
    """One pool per layer.

    Args:
        num_layers: Layers of the model that attend.
    """

    def __init__(self, num_layers: int) -> None:
        self.layers = [PooledLayer() for _ in range(num_layers)]

    def cache(self, plan: BatchPlan) -> Any:
        """A transformers cache that serves one forward pass."""
        from transformers.cache_utils import Cache, CacheLayerMixin

        CacheLayerMixin.register(PooledLayer)
        for layer in self.layers:
            layer.plan, layer.is_used = plan, False
        return Cache(layers=list(self.layers))  # type: ignore[arg-type]

    def num_bytes(self) -> int:
        """Bytes of keys and values held."""
        tensors = [t for layer in self.layers for t in (layer.keys, layer.values) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)


class PooledLayer:
    """Keys and values of one layer: (rows, heads * head_dim), laid out as :class:`KVSlots` says.

    The methods are those that transformers calls on a layer of its cache.
    """

    is_sliding = False
    is_compileable = False
    is_croppable = False
    supports_early_init = False
    is_initialized = True

    def __init__(self) -> None:
        self.keys: torch.Tensor | None = None
        self.values: torch.Tensor | None = None
        self.plan: BatchPlan | None = None
        self.is_used = False

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values, return all that the batch attends to.

        Args:
            key_states: (n, heads, query_length, head_dim).
            value_states: The same, with a head_dim of its own.

        Returns:
            Both as (n, heads, kv_length, head_dim).
        """
        assert self.plan is not None
        self.is_used = True
        self.keys, all_keys = _exchange(self.keys, key_states, self.plan)
        self.values, all_values = _exchange(self.values, value_states, self.plan)
        return all_keys, all_values

    def get_seq_length(self) -> int:
        """Columns that are not new."""
        assert self.plan is not None
        return self.plan.kv_length - self.plan.query_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns to mask, and the first one."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum of its own."""
        return -1


def _exchange(
    pool: torch.Tensor | None, states: torch.Tensor, plan: BatchPlan
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write new states (n, heads, query, dim) to the pool and gather (n, heads, kv, dim) from it."""
    num_texts, heads, _, width = states.shape
    pool = _grown(pool, plan.num_rows, heads * width, states)
    flat = states.transpose(1, 2).reshape(-1, heads * width)
    pool.index_copy_(0, plan.write_rows, flat.index_select(0, plan.write_from))
    gathered = pool.index_select(0, plan.read_rows)
    return pool, gathered.view(num_texts, plan.kv_length, heads, width).transpose(1, 2)


def _grown(pool: torch.Tensor | None, num_rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """The pool with room for `num_rows`; grown by doubling."""
    if pool is not None and pool.shape[0] >= num_rows:
        return pool
    room = max(num_rows, 16 * BLOCK if pool is None else 2 * pool.shape[0])
    grown = like.new_zeros(room, width)
    if pool is not None:
        grown[: pool.shape[0]] = pool
    return grown
