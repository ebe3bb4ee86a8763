"""Runs a plug-in over many texts at once, each reading on from where it stopped."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.machine import attention_of_any_shape
from onceedit_vllm.plugin.architecture import num_embeddings
from onceedit_vllm.plugin.attention import use_grouped_queries
from onceedit_vllm.plugin.batching import BatchCost, Shape, grouped
from onceedit_vllm.plugin.kv_pool import BatchPlan, KVPool, LayerShape, probe_layers
from onceedit_vllm.plugin.kv_slots import MIN_SHARED, MIN_SHARED_ON_GPU, Intake, KVSlots
from onceedit_vllm.plugin.prefixes import BLOCK

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: A longer text is read in parts: attention masks grow with its square.
_MAX_PART = 1024
#: New tokens of one forward pass, padding included, at most (one part is always taken whole).
_MAX_BATCH_TOKENS = 4096


class PlugInStep(NamedTuple):
    """One row of a plug-in step.

    Attributes:
        slot: The KV slot, as returned by :meth:`PlugInRuntime.open`.
        rollback: How many of the slot's last tokens to forget before reading new ones.
        token_ids: Plug-in tokens to read, at least one.
    """

    slot: int
    rollback: int
    token_ids: Sequence[int]


class PlugInOutput(NamedTuple):
    """What a plug-in says after a step, one row per :class:`PlugInStep`, in the same order.

    Attributes:
        log_probs: (num_steps, V_s) float32, log-softmax over the plug-in's vocabulary with
            the [WEIGHT] token (and padding rows without a token) at -inf.
        weight_logits: (num_steps,) float32, the raw [WEIGHT] logit at the last token read.
    """

    log_probs: torch.Tensor
    weight_logits: torch.Tensor


class _Part(NamedTuple):
    """Some new tokens of one step: row `row` of the output, `start` tokens already in the slot."""

    row: int
    slot: int
    start: int
    token_ids: Sequence[int]


class PlugInRuntime:
    """Batched KV slots on top of any causal LM of transformers with plain attention.

    Texts that begin with the same tokens share what was read of them, whichever slots hold them, also after
    those were closed, as long as there is room.

    Args:
        model: The plug-in, on its device, in its dtype; put into eval mode, and given attention of ours
            where that is faster (:mod:`onceedit_vllm.plugin.attention`).
        weight_token_id: The [WEIGHT] token.
        max_context: Longest text in tokens.
        kv_cache_bytes: Keys and values of all slots together, taken now. Outputs and what a pass needs
            besides are not counted.
        num_tokens: Tokens of the vocabulary; rows of the logits beyond it are padding. None: no
            padding.
        share_prefixes: Whether texts that begin alike share what was read.

    Attributes:
        num_read_tokens: Tokens that the model has read so far.
        batch_cost: By which texts are parted into passes.

    Raises:
        ModelError: The model keeps something else than keys and values between tokens, or
            `weight_token_id` is not a row of its logits.
        BadInputError: `kv_cache_bytes` cannot hold one text of `max_context` tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        weight_token_id: int,
        max_context: int,
        *,
        kv_cache_bytes: int,
        num_tokens: int | None = None,
        share_prefixes: bool = True,
    ) -> None:
        self.model = model.eval()
        self.max_context = max_context
        self.weight_token_id = weight_token_id
        self.num_read_tokens = 0
        self._num_tokens = num_tokens
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        self._num_embeddings = num_embeddings(model)
        if not 0 <= weight_token_id < self._num_embeddings:
            raise ModelError(
                f"the [WEIGHT] token has id {weight_token_id}, but the plug-in knows {self._num_embeddings} "
                "ids; this is not the model that the pack was made of"
            )
        use_grouped_queries(model)
        shapes = probe_layers(model)
        num_blocks = _num_blocks(shapes, kv_cache_bytes, max_context)
        on_gpu = self.device.type != "cpu"
        least = MIN_SHARED_ON_GPU if on_gpu else MIN_SHARED
        self._slots = KVSlots(num_blocks, share_prefixes=share_prefixes, min_shared=least)
        self._pool = KVPool(shapes, num_blocks, self.device)
        weights = sum(parameter.nbytes for parameter in model.parameters())
        column = sum(shape.bytes_per_token for shape in shapes)
        self.batch_cost = BatchCost.of(weights, column, on_gpu=on_gpu)

    @property
    def device(self) -> torch.device:
        """Where the model is, and where outputs come out."""
        return torch.device(self.model.device)

    @property
    def width(self) -> int:
        """V_s, the width of the model's logits."""
        return self._num_embeddings

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def open(self) -> int:
        """Take an empty slot. It costs no memory before it reads."""
        return self._slots.open()

    def close(self, slot: int) -> None:
        """Give a slot back; one that is not open is left alone."""
        self._slots.close(slot)

    def length(self, slot: int) -> int:
        """Tokens that an open slot has read."""
        return self._slots.length(slot)

    def num_bytes(self) -> int:
        """Bytes of the KV pool: at most `kv_cache_bytes`, whatever is read."""
        return self._pool.num_bytes()

    def capacity(self) -> int:
        """Tokens for which the KV pool has room."""
        return self._slots.capacity

    def num_free_tokens(self) -> int:
        """Tokens for which there is room now, in whole blocks of 16."""
        return self._slots.num_free_tokens

    def num_reused_tokens(self) -> int:
        """Tokens that need not be read so far, because another text began with them."""
        return self._slots.num_reused_tokens

    def step(self, steps: Sequence[PlugInStep]) -> PlugInOutput:
        """Roll back, read new tokens, and predict the next one, for distinct slots at once.

        Returns:
            One row per step, in order; see :class:`PlugInOutput`. log_probs has the width of the
            model's logits. Not-a-number weights give not-a-number rows.

        Raises:
            KVCacheFullError: There is no room for one of them; nothing was read or changed.
            ModelError: A step cannot be taken; nothing was read or changed.
            Exception: The model failed. The slots of these steps are empty then.
        """
        logits = self.last_logits(steps)
        weight_logits = logits[:, self.weight_token_id].clone()
        logits[:, self.weight_token_id] = -torch.inf
        if self._num_tokens is not None:
            logits[:, self._num_tokens :] = -torch.inf
        return PlugInOutput(logits.log_softmax(-1), weight_logits)

    def last_logits(self, steps: Sequence[PlugInStep]) -> torch.Tensor:
        """Raw logits at the last token of each step: (num_steps, V_s) float32. See :meth:`step`."""
        self._check(steps)
        intakes, copies = self._slots.admit(steps)
        slots = [step.slot for step in steps]
        # Made outside inference mode, so that a caller may write into what comes of it.
        logits = torch.empty(len(steps), self._num_embeddings, device=self.device)
        try:
            with torch.inference_mode(), attention_of_any_shape(self.device.type):
                self._pool.copy(copies)
                for batch in self._batches(steps, intakes):
                    rows = torch.tensor([part.row for part in batch], device=self.device)
                    logits.index_copy_(0, rows, self._forward(batch))
        except BaseException:
            for slot in slots:
                self._slots.clear(slot)
            raise
        self._slots.register(slots)
        return logits

    def num_layers_used(self) -> tuple[int, int]:
        """Layers that kept keys and values in the last pass, and layers there are."""
        return sum(layer.is_used for layer in self._pool.layers), len(self._pool.layers)

    def _check(self, steps: Sequence[PlugInStep]) -> None:
        if len({step.slot for step in steps}) < len(steps):
            raise ModelError("two steps of one batch name the same plug-in slot; take them one after another")
        for step in steps:
            kept = self._slots.length(step.slot) - step.rollback
            if step.rollback < 0 or kept < 0:
                raise ModelError(
                    f"plug-in slot {step.slot} holds {kept + step.rollback} tokens and cannot roll back "
                    f"{step.rollback}"
                )
            if not step.token_ids:
                raise ModelError(f"plug-in slot {step.slot}: a step reads at least one token")
            if kept + len(step.token_ids) > self.max_context:
                raise ModelError(
                    f"plug-in slot {step.slot}: {kept + len(step.token_ids)} tokens are more than the "
                    f"plug-in's context of {self.max_context}; let TextSync cut the text"
                )
            if min(step.token_ids) < 0 or max(step.token_ids) >= self._num_embeddings:
                raise ModelError(
                    f"plug-in slot {step.slot}: a token id is outside the plug-in's vocabulary of "
                    f"{self._num_embeddings}; encode with the pack's own tokenizer"
                )

    def _batches(self, steps: Sequence[PlugInStep], intakes: Sequence[Intake]) -> Iterator[list[_Part]]:
        """What each pass reads, in an order in which no text is read before what it takes over."""
        rounds: list[list[_Part]] = []
        ends: list[int] = []
        for row, (step, intake) in enumerate(zip(steps, intakes, strict=True)):
            first_round = max((ends[writer] for writer in intake.waits_for), default=0)
            parts = _parts(row, step, intake, self._slots.length(step.slot))
            ends.append(first_round + len(parts))
            rounds += [[] for _ in range(ends[-1] - len(rounds))]
            for i, part in enumerate(parts, first_round):
                rounds[i].append(part)
        for parts in rounds:
            shapes = [Shape(len(part.token_ids), part.start + len(part.token_ids)) for part in parts]
            for group in grouped(shapes, self.batch_cost, _MAX_BATCH_TOKENS):
                yield [parts[i] for i in group]

    def _forward(self, batch: Sequence[_Part]) -> torch.Tensor:
        """Last-token logits of one batch, (n, V_s) float32."""
        lengths = [part.start + len(part.token_ids) for part in batch]
        rows, positions = self._slots.rows([part.slot for part in batch], lengths)
        query_length = max(len(part.token_ids) for part in batch)
        # Padding repeats a row's own token, so that what is broken in one row stays there.
        tokens = torch.tensor(
            [[part.token_ids[0]] * (query_length - len(part.token_ids)) + [*part.token_ids] for part in batch]
        )
        num_new = torch.tensor([[len(part.token_ids)] for part in batch])
        is_new = torch.arange(query_length, 0, -1) <= num_new
        is_padded = len({len(part.token_ids) for part in batch}) > 1
        plan = BatchPlan(
            read_rows=rows.flatten().to(self.device),
            write_rows=rows[:, -query_length:][is_new].to(self.device),
            write_from=is_new.flatten().nonzero().flatten().to(self.device) if is_padded else None,
            kv_length=rows.shape[1],
            query_length=query_length,
        )
        self.num_read_tokens += int(num_new.sum())
        inputs = self._inputs(tokens, positions, plan)
        logits: torch.Tensor = self.model(**inputs).logits[:, -1]
        return logits.float()

    def _inputs(self, tokens: torch.Tensor, positions: torch.Tensor, plan: BatchPlan) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "input_ids": tokens.to(self.device),
            "attention_mask": (positions >= 0).to(self.device, torch.int64),
            "past_key_values": self._pool.cache(plan),
            "use_cache": True,
        }
        if "position_ids" in self._accepted:
            new = positions[:, -plan.query_length :].clamp(min=0)
            inputs["position_ids"] = new.to(self.device)
        if "logits_to_keep" in self._accepted:
            inputs["logits_to_keep"] = 1
        return inputs


def _parts(row: int, step: PlugInStep, intake: Intake, length: int) -> list[_Part]:
    """What is to be read of one step, in parts of at most :data:`_MAX_PART` tokens."""
    rest = step.token_ids[intake.start - length :]
    return [
        _Part(row, step.slot, intake.start + start, rest[start : start + _MAX_PART])
        for start in range(0, len(rest), _MAX_PART)
    ]


def _num_blocks(shapes: Sequence[LayerShape], kv_cache_bytes: int, max_context: int) -> int:
    """Blocks of all layers that a budget pays for.

    Raises:
        BadInputError: They cannot hold one text of `max_context` tokens.
    """
    block_bytes = BLOCK * sum(shape.bytes_per_token for shape in shapes)
    needed = -(-max_context // BLOCK) * block_bytes
    if kv_cache_bytes < needed:
        raise BadInputError(
            f"plugin.kv_cache_bytes is {kv_cache_bytes:,}, but one text of {max_context} tokens takes "
            f"{needed:,} bytes of keys and values ({block_bytes // BLOCK:,} a token); give it as many or "
            "more, or set plugin.max_context to a shorter text"
        )
    return kv_cache_bytes // block_bytes
