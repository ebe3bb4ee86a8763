"""Measuring a plug-in on texts: is the answer right, how sure, and what is alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from onceedit_vllm.editing.augment import Example
from onceedit_vllm.editing.batches import IGNORED, Batch, collate, encode_example
from onceedit_vllm.editing.objective import answer_log_probs, run_forward

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Reading(NamedTuple):
    """What the plug-in does with one text.

    Attributes:
        probability: Smallest probability among the answer's tokens and the end of sequence; 1.0
            where the text has no answer.
        greedy: Greedy decoding gives exactly the answer and stops.
        alpha: The ensemble weight.
    """

    probability: float
    greedy: bool
    alpha: float


def read_examples(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    weight_token_id: int,
    batch_size: int = 32,
) -> list[Reading]:
    """Measure texts, in their order.

    Teacher forcing decides `greedy` exactly: decoding follows the answer if and only if every next
    token of it is the most probable one.
    """
    encoded = [encode_example(example, tokenizer) for example in examples]
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].ids))
    readings: dict[int, Reading] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = collate([encoded[index] for index in chosen], tokenizer.pad_token_id or 0)
            batch = Batch(*(tensor.to(model.device) for tensor in batch))
            readings.update(zip(chosen, _read(model, batch, weight_token_id), strict=True))
    model.train(was_training)
    return [readings[index] for index in range(len(examples))]


def _read(model: Any, batch: Batch, weight_token_id: int) -> list[Reading]:
    forward = run_forward(model, batch, weight_token_id)
    known = batch.labels != IGNORED
    lowest = answer_log_probs(forward.log_probs, batch.labels).amin(-1).exp()
    right = ((forward.log_probs.argmax(-1) == batch.labels) | ~known).all(-1)
    alphas = forward.gate_logits.sigmoid()
    return [Reading(float(p), bool(r), float(a)) for p, r, a in zip(lowest, right, alphas, strict=True)]
