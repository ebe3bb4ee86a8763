"""From texts to padded batches: token ids, where the gate is read, and the answer's labels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from onceedit_vllm.editing.augment import Example
from onceedit_vllm.evidence import MOST_BEGINNINGS

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

#: A label that is not learnt.
IGNORED = -100
#: Texts are cut to their last tokens; only very long unrelated prompts meet this.
MAX_TOKENS = 256


class Encoded(NamedTuple):
    """One example in tokens.

    Attributes:
        ids: The text and its answer, without the closing end-of-sequence token.
        prompt_length: How many of them are the text; the gate is read at the last of these.
        answer: What is to be predicted from there on, end of sequence included; empty for none.
        label: The gate's.
        beginning: Tokens that the answer of the edit it names can begin with; empty where it names none.
    """

    ids: list[int]
    prompt_length: int
    answer: list[int]
    label: float
    beginning: tuple[int, ...] = ()


class Batch(NamedTuple):
    """B examples, padded on the left so that every text ends in the last column.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64.
        labels: (B, K) int64 for the last K positions; `IGNORED` where nothing is learnt.
        gate_position: (B,) int64 in 0..K-1, the last token of the prompt.
        gate_label: (B,) float32.
        beginning: (B, 2) int64, tokens that the named edit's answer can begin with, then `IGNORED`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    gate_position: Tensor
    gate_label: Tensor
    beginning: Tensor


def join(text: str, target: str) -> str:
    """The text followed by the answer as the plug-in is to write it."""
    gap = "" if not text or text[-1].isspace() else " "
    return f"{text}{gap}{target.strip()}"


def encode_example(example: Example, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Tokenize an example.

    The whole text is encoded once. Its prompt ends where it stops agreeing with the encoding of
    the prompt alone, so a token merged across the seam belongs to the answer.
    """
    eos = tokenizer.eos_token_id
    prompt = _encode(example.text, tokenizer)
    if not example.target:
        answer = [] if example.target is None or eos is None else [eos]
        return Encoded(prompt[-MAX_TOKENS:], min(len(prompt), MAX_TOKENS), answer, example.label)
    whole = _encode(join(example.text, example.target), tokenizer)
    seam = 0
    while seam < min(len(prompt), len(whole) - 1) and prompt[seam] == whole[seam]:
        seam += 1
    answer = [*whole[seam:], *([eos] if eos is not None else [])]
    cut = max(len(whole) - MAX_TOKENS, 0)
    return Encoded(whole[cut:], seam - cut, answer, example.label)


def _encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:  # some tokenizers close every text
        ids = ids[:-1]
    return list(ids)


def collate(examples: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad examples into one batch."""
    width = max(len(example.ids) for example in examples)
    kept = max(len(example.ids) - example.prompt_length for example in examples) + 1
    ids = torch.full((len(examples), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    labels = torch.full((len(examples), kept), IGNORED, dtype=torch.int64)
    gate = torch.empty(len(examples), dtype=torch.int64)
    beginning = torch.full((len(examples), MOST_BEGINNINGS), IGNORED, dtype=torch.int64)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, width - length :] = torch.tensor(example.ids)
        mask[row, width - length :] = 1
        gate[row] = kept - 1 - (length - example.prompt_length)
        if example.answer:
            start = int(gate[row])
            labels[row, start : start + len(example.answer)] = torch.tensor(example.answer)
        beginning[row, : len(example.beginning)] = torch.tensor(example.beginning, dtype=torch.int64)
    gate_label = torch.tensor([example.label for example in examples])
    return Batch(ids, mask, labels, gate, gate_label, beginning)


def in_length_order(examples: Sequence[Encoded], batch_size: int) -> tuple[list[int], list[list[Encoded]]]:
    """Batches from the shortest to the longest text, and each text's place in the order given."""
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].ids))
    chosen = [examples[index] for index in order]
    return order, [chosen[at : at + batch_size] for at in range(0, len(chosen), batch_size)]


def make_batches(examples: Sequence[Encoded], batch_size: int, rng: random.Random) -> list[list[Encoded]]:
    """Cut into batches of similar lengths, in random order.

    All of a round is sorted: positives and negatives go through the same wraps, so a batch is a mixture
    at any length, and padding would be a third of the work otherwise.
    """
    shuffled = rng.sample(examples, len(examples))
    _, batches = in_length_order(shuffled, batch_size)
    rng.shuffle(batches)
    return batches


def model_inputs(batch: Batch, model: Any) -> dict[str, Any]:
    """Keyword arguments for a causal LM's forward that returns the last K logits only."""
    positions = (batch.attention_mask.cumsum(-1) - 1).clamp_min(0)
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    accepted = forward_arguments(model)
    if "position_ids" in accepted:
        inputs["position_ids"] = positions
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = batch.labels.shape[1]
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs


def forward_arguments(model: Any) -> frozenset[str]:
    """Names of the arguments that the model's forward takes."""
    import inspect

    return frozenset(inspect.signature(type(model).forward).parameters)
