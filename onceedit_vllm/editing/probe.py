"""Measuring a plug-in on texts: is the answer right, how sure, and what is alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from onceedit_vllm.editing.augment import Example
from onceedit_vllm.editing.batches import IGNORED, Batch, encode_example, in_length_order
from onceedit_vllm.editing.objective import answer_log_probs, run_forward
from onceedit_vllm.editing.plugin_model import EditablePlugIn, to_tensors


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


@torch.no_grad()
def read_examples(plugin: EditablePlugIn, examples: Sequence[Example], batch_size: int = 32) -> list[Reading]:
    """Measure texts, in their order.

    Teacher forcing decides `greedy` exactly: decoding follows the answer if and only if every next
    token of it is the most probable one.
    """
    encoded = [encode_example(example, plugin.tokenizer) for example in examples]
    order, batches = in_length_order(encoded, batch_size)
    was_training = plugin.model.training
    plugin.model.eval()
    found = [reading for batch in batches for reading in _read(plugin, to_tensors(batch, plugin))]
    plugin.model.train(was_training)
    placed = dict(zip(order, found, strict=True))
    return [placed[index] for index in range(len(examples))]


def _read(plugin: EditablePlugIn, batch: Batch) -> list[Reading]:
    forward = run_forward(plugin, batch)
    known = batch.labels != IGNORED
    lowest = answer_log_probs(forward.log_probs, batch.labels).amin(-1).exp()
    right = ((forward.log_probs.argmax(-1) == batch.labels) | ~known).all(-1)
    alphas = forward.gate_logits.sigmoid()
    return [Reading(float(p), bool(r), float(a)) for p, r, a in zip(lowest, right, alphas, strict=True)]
