"""Measuring a plug-in on texts: is the answer right, how sure, and what is alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from onceedit_vllm.editing.augment import Example
from onceedit_vllm.editing.batches import Batch, encode_example, in_length_order
from onceedit_vllm.editing.objective import answer_log_probs, missed_labels, run_forward
from onceedit_vllm.editing.plugin_model import EditablePlugIn, to_tensors
from onceedit_vllm.evidence import first_tokens, sigmoid, weigh_answer


class Reading(NamedTuple):
    """What the plug-in does with one text.

    Attributes:
        probability: Smallest probability among the answer's tokens and the end of sequence; 1.0
            where the text has no answer.
        greedy: Greedy decoding gives exactly the answer and stops.
        alpha: What [WEIGHT] says alone.
        evidence: What it says with the named edit's answer; see :mod:`onceedit_vllm.evidence`.
    """

    probability: float
    greedy: bool
    alpha: float
    evidence: float


@torch.no_grad()
def read_examples(
    plugin: EditablePlugIn,
    examples: Sequence[Example],
    targets: Sequence[str] = (),
    batch_size: int = 32,
) -> list[Reading]:
    """Measure texts, in their order.

    Teacher forcing decides `greedy` exactly: decoding follows the answer if and only if every next
    token of it is the most probable one.

    Args:
        plugin: The plug-in as it is now.
        examples: The texts.
        targets: The answer of each edit, for the evidence of texts that name one.
        batch_size: Texts in a forward pass.
    """
    encoded = [encode_example(example, plugin.tokenizer) for example in examples]
    order, batches = in_length_order(encoded, batch_size)
    beginnings = [first_tokens(target, plugin.tokenizer) for target in targets]
    edits = iter([examples[index].edit for index in order])
    was_training = plugin.model.training
    plugin.model.eval()
    found: list[Reading] = []
    for batch in batches:
        named = [beginnings[edit] if 0 <= (edit := next(edits)) < len(beginnings) else () for _ in batch]
        found += _read(plugin, to_tensors(batch, plugin), named)
    plugin.model.train(was_training)
    placed = dict(zip(order, found, strict=True))
    return [placed[index] for index in range(len(examples))]


def _read(plugin: EditablePlugIn, batch: Batch, named: Sequence[tuple[int, ...]]) -> list[Reading]:
    forward = run_forward(plugin, batch)
    picked, none = answer_log_probs(forward.log_probs, batch.labels), torch.zeros_like(batch.gate_label)
    lowest = none.scatter_reduce(0, batch.texts, picked, "amin").exp().tolist()
    right = (none.index_add(0, batch.texts, missed_labels(forward.log_probs, batch.labels)) == 0).tolist()
    readings = []
    for row, tokens in enumerate(named):
        logit, next_log_probs = float(forward.gate_logits[row]), forward.log_probs[batch.gate[row]]
        alpha = evidence = sigmoid(logit)
        if tokens:
            beginnings = next_log_probs[list(tokens)].tolist()
            evidence = weigh_answer(logit, beginnings, float(next_log_probs.max()))
        readings.append(Reading(lowest[row], right[row], alpha, evidence))
    return readings
