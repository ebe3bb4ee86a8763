"""Runs a plug-in over many texts at once, each reading on from where it stopped."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.architecture import num_attention_layers, num_embeddings
from onceedit_vllm.plugin.kv_pool import BatchPlan, KVPool
from onceedit_vllm.plugin.kv_slots import KVSlots

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


class KVCacheFullError(ModelError):
    """A step does not fit into the budget; nothing was read. ``slot`` is the one without room."""

    def __init__(self, message: str, slot: int) -> None:
        super().__init__(message)
        self.slot = slot


class _Part(NamedTuple):
    """Some new tokens of one step: row `row` of the output, `start` tokens already in the slot."""

    row: int
    slot: int
    start: int
    token_ids: Sequence[int]


class PlugInRuntime:
    """Batched KV slots on top of any causal LM of transformers with plain attention.

    Args:
        model: The plug-in, on its device, in its dtype; put into eval mode.
        weight_token_id: The [WEIGHT] token.
        max_context: Longest text in tokens.
        num_tokens: Tokens of the vocabulary; rows of the logits beyond it are padding. None: no
            padding.

    Raises:
        ModelError: The model keeps something else than keys and values between tokens, or
            `weight_token_id` is not a row of its logits.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        weight_token_id: int,
        max_context: int,
        *,
        num_tokens: int | None = None,
    ) -> None:
        self.model = model.eval()
        self.max_context = max_context
        self.weight_token_id = weight_token_id
        self._num_tokens = num_tokens
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        self._num_embeddings = num_embeddings(model)
        self._slots = KVSlots()
        self._pool = KVPool(num_attention_layers(model))
        if not 0 <= weight_token_id < self._num_embeddings:
            raise ModelError(
                f"the [WEIGHT] token has id {weight_token_id}, but the plug-in knows {self._num_embeddings} "
                "ids; this is not the model that the pack was made of"
            )

    @property
    def device(self) -> torch.device:
        """Where the model is, and where outputs come out."""
        return torch.device(self.model.device)

    @property
    def width(self) -> int:
        """V_s, the width of the model's logits."""
        return self._num_embeddings

    def open(self) -> int:
        """Take an empty slot."""
        return self._slots.open()

    def close(self, slot: int) -> None:
        """Give a slot back; one that is not open is left alone."""
        self._slots.close(slot)

    def length(self, slot: int) -> int:
        """Tokens that an open slot has read."""
        return self._slots.length(slot)

    def num_bytes(self) -> int:
        """Bytes of the KV pool."""
        return self._pool.num_bytes()

    def step(self, steps: Sequence[PlugInStep]) -> PlugInOutput:
        """Roll back, read new tokens, and predict the next one, for distinct slots at once.

        Returns:
            One row per step, in order; see :class:`PlugInOutput`. log_probs has the width of the
            model's logits. Not-a-number weights give not-a-number rows.

        Raises:
            ModelError: A step cannot be taken; nothing was read then.
        """
        self._check(steps)
        logits = self.last_logits(steps)
        weight_logits = logits[:, self.weight_token_id].clone()
        logits[:, self.weight_token_id] = -torch.inf
        if self._num_tokens is not None:
            logits[:, self._num_tokens :] = -torch.inf
        return PlugInOutput(logits.log_softmax(-1), weight_logits)

    def last_logits(self, steps: Sequence[PlugInStep]) -> torch.Tensor:
        """Raw logits at the last token of each step: (num_steps, V_s) float32."""
        rounds = self._take_in(steps)
        # Made outside inference mode, so that a caller may write into what comes of it.
        logits = torch.empty(len(steps), self._num_embeddings, device=self.device)
        with torch.inference_mode():
            for parts in rounds:
                for batch in _batches(parts):
                    rows = torch.tensor([part.row for part in batch], device=self.device)
                    logits.index_copy_(0, rows, self._forward(batch))
        return logits

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

    def _take_in(self, steps: Sequence[PlugInStep]) -> list[list[_Part]]:
        """Make room in the slots; what to read, in rounds of one part per step."""
        rounds: list[list[_Part]] = []
        for row, step in enumerate(steps):
            kept = self._slots.length(step.slot) - step.rollback
            self._slots.resize(step.slot, kept)
            self._slots.resize(step.slot, kept + len(step.token_ids))
            for i, start in enumerate(range(0, len(step.token_ids), _MAX_PART)):
                if i == len(rounds):
                    rounds.append([])
                tokens = step.token_ids[start : start + _MAX_PART]
                rounds[i].append(_Part(row, step.slot, kept + start, tokens))
        return rounds

    def _forward(self, batch: Sequence[_Part]) -> torch.Tensor:
        """Last-token logits of one batch, (n, V_s) float32."""
        lengths = torch.tensor([part.start + len(part.token_ids) for part in batch])
        rows, positions = self._slots.rows([part.slot for part in batch], lengths)
        query_length = max(len(part.token_ids) for part in batch)
        tokens = torch.zeros(len(batch), query_length, dtype=torch.int64)
        is_new = torch.zeros_like(tokens, dtype=torch.bool)
        for row, part in enumerate(batch):
            tokens[row, -len(part.token_ids) :] = torch.as_tensor(part.token_ids)
            is_new[row, -len(part.token_ids) :] = True
        plan = BatchPlan(
            read_rows=rows.flatten().to(self.device),
            write_rows=rows[:, -query_length:][is_new].to(self.device),
            write_from=is_new.flatten().nonzero().flatten().to(self.device),
            kv_length=rows.shape[1],
            query_length=query_length,
            num_rows=self._slots.num_rows,
        )
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

    def num_layers_used(self) -> tuple[int, int]:
        """Layers that kept keys and values in the last pass, and layers there are."""
        return sum(layer.is_used for layer in self._pool.layers), len(self._pool.layers)


def _batches(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Parts of about the same length together: padding stays below the tokens themselves."""
    by_length = defaultdict(list)
    for part in parts:
        by_length[(len(part.token_ids) - 1).bit_length()].append(part)
    for exponent, group in by_length.items():
        size = max(1, _MAX_BATCH_TOKENS >> exponent)
        for start in range(0, len(group), size):
            yield group[start : start + size]
