"""The keys and values of all slots, behind the cache interface of transformers.

transformers sees an ordinary left-padded batch: all rows end at the same column, the columns before
a row's first token are masked. So its own code makes every mask (causal, sliding window, chunked)
and every position-dependent bias, and the last token of every row is the last column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.architecture import ADVICE, num_attention_layers, unfit
from onceedit_vllm.plugin.kv_slots import Copies
from onceedit_vllm.plugin.prefixes import BLOCK

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayerShape(NamedTuple):
    """What one layer keeps of a token: widths are heads * head_dim."""

    key_width: int
    value_width: int
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values."""
        return (self.key_width + self.value_width) * self.dtype.itemsize


def probe_layers(model: PreTrainedModel) -> list[LayerShape]:
    """Read two tokens and look at what each layer keeps: no configuration says it for all architectures.

    Raises:
        ModelError: A layer keeps something else than keys and values, or keeps them elsewhere.
    """
    from transformers.cache_utils import DynamicCache

    num_layers = num_attention_layers(model)
    cache: Any = DynamicCache(config=model.config)
    ids = torch.zeros(1, 2, dtype=torch.int64, device=model.device)
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True)
    except Exception as error:
        raise unfit(model, f"a trial step failed ({error!r})") from error
    kept = [(layer.keys, layer.values) for layer in cache.layers if layer.get_seq_length()]
    if len(kept) < num_layers:
        raise unfit(
            model,
            f"{num_layers - len(kept)} of its {num_layers} layers do not keep their keys and values in the "
            f"cache; {ADVICE}",
        )
    return [LayerShape(_width(keys), _width(values), keys.dtype) for keys, values in kept]


def _width(states: torch.Tensor) -> int:
    """Numbers per token in (n, heads, length, head_dim)."""
    return states.shape[1] * states.shape[3]


class BatchPlan(NamedTuple):
    """Where one batch reads and writes the pool.

    Attributes:
        read_rows: (n * kv_length,) int64: the pool row of every column of every batch row.
        write_rows: (m,) int64: the pool row of every new token.
        write_from: (m,) int64: its place among the (n * query_length) tokens of the batch. None: all of
            them are new, in order.
        kv_length: Columns, old and new.
        query_length: Columns that are new.
    """

    read_rows: torch.Tensor
    write_rows: torch.Tensor
    write_from: torch.Tensor | None
    kv_length: int
    query_length: int

    @property
    def is_whole(self) -> bool:
        """Whether the new tokens are all there is, without padding: nothing need be read from the pool."""
        return self.write_from is None and self.kv_length == self.query_length


class KVPool:
    """Keys and values of a fixed number of blocks, layer by layer.

    On a CPU the system gives the memory as it is first written to; on a GPU all is taken here.

    Args:
        shapes: One per layer of the model that attends.
        num_blocks: Blocks of :data:`BLOCK` tokens.
        device: Where the model is.

    Raises:
        ModelError: There is no memory for them.
    """

    def __init__(self, shapes: Sequence[LayerShape], num_blocks: int, device: torch.device) -> None:
        try:
            self.layers = [PooledLayer(shape, num_blocks * BLOCK, device) for shape in shapes]
        except RuntimeError as error:  # torch has no class of its own for a CPU's memory
            per_token = sum(shape.bytes_per_token for shape in shapes)
            raise ModelError(
                f"there is no memory on {device} for {num_blocks * BLOCK * per_token / 1e9:.2f} GB of the "
                f"plug-in's keys and values ({error}); give it a smaller plugin.kv_cache_bytes "
                f"({per_token:,} a token of all texts together), or free memory"
            ) from error

    def cache(self, plan: BatchPlan) -> Any:
        """A transformers cache that serves one forward pass."""
        from transformers.cache_utils import Cache, CacheLayerMixin

        CacheLayerMixin.register(PooledLayer)
        for layer in self.layers:
            layer.plan, layer.is_used = plan, False
        return Cache(layers=list(self.layers))  # type: ignore[arg-type]

    def copy(self, copies: Copies) -> None:
        """Copy blocks, all sources before any target."""
        if not copies.sources:
            return
        device = self.layers[0].keys.device
        sources, targets = (torch.tensor(blocks, device=device) for blocks in copies)
        for layer in self.layers:
            for states in (layer.keys, layer.values):
                blocks = states.view(-1, BLOCK * states.shape[1])
                blocks.index_copy_(0, targets, blocks.index_select(0, sources))

    def num_bytes(self) -> int:
        """Bytes of keys and values, used or not."""
        return sum(states.nbytes for layer in self.layers for states in (layer.keys, layer.values))


class PooledLayer:
    """Keys and values of one layer: (rows, heads * head_dim), laid out as :class:`KVSlots` says.

    The methods are those that transformers calls on a layer of its cache.
    """

    is_sliding = False
    is_compileable = False
    is_croppable = False
    supports_early_init = False
    is_initialized = True

    def __init__(self, shape: LayerShape, num_rows: int, device: torch.device) -> None:
        # Zeros, not whatever is there: a row that is masked must still be a number.
        self.keys = torch.zeros(num_rows, shape.key_width, dtype=shape.dtype, device=device)
        self.values = torch.zeros(num_rows, shape.value_width, dtype=shape.dtype, device=device)
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
        return _exchange(self.keys, key_states, self.plan), _exchange(self.values, value_states, self.plan)

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


def _exchange(pool: torch.Tensor, states: torch.Tensor, plan: BatchPlan) -> torch.Tensor:
    """Write new states (n, heads, query, dim) to the pool and gather (n, heads, kv, dim) from it."""
    num_texts, heads, _, width = states.shape
    flat = states.transpose(1, 2).reshape(-1, heads * width)
    if plan.write_from is not None:
        flat = flat.index_select(0, plan.write_from)
    pool.index_copy_(0, plan.write_rows, flat)
    if plan.is_whole:
        return states
    gathered = pool.index_select(0, plan.read_rows)
    return gathered.view(num_texts, plan.kv_length, heads, width).transpose(1, 2)
