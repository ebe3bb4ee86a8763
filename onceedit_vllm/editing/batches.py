"""From texts to padded batches: token ids, where the output layer is asked, and what it is to say there."""

from __future__ import annotations

import inspect
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
    """B examples, padded on the left so that every text ends in the last column, and N places in them.

    The places of a text are its prompt's last token, where the gate is read, and those of its answer at
    which a token of it is yet to come. Of the logits only theirs are made: over a vocabulary, those of a
    whole batch take as long as a third of the layers.

    Attributes:
        input_ids: (B, T) int64.
        attention_mask: (B, T) int64.
        places: (N,) int64, into the flattened `input_ids`, text by text.
        texts: (N,) int64, the text that each is in.
        labels: (N,) int64, the next token of the answer; `IGNORED` where there is none.
        gate: (B,) int64, each text's first place.
        gate_label: (B,) float32.
        beginning: (B, 2) int64, tokens that the named edit's answer can begin with, then `IGNORED`.
    """

    input_ids: Tensor
    attention_mask: Tensor
    places: Tensor
    texts: Tensor
    labels: Tensor
    gate: Tensor
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
    cut = max(min(len(whole) - MAX_TOKENS, seam - 1), 0)  # the gate's place stays, however long the answer
    return Encoded(whole[cut:], seam - cut, answer, example.label)


def _encode(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    while len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:  # some tokenizers close every text
        ids = ids[:-1]
    return list(ids)


def collate(examples: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad examples into one batch."""
    width = max(len(example.ids) for example in examples)
    ids = torch.full((len(examples), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(examples), width), dtype=torch.int64)
    beginning = torch.full((len(examples), MOST_BEGINNINGS), IGNORED, dtype=torch.int64)
    places: list[int] = []
    labels: list[int] = []
    counts: list[int] = []
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, width - length :] = torch.tensor(example.ids)
        mask[row, width - length :] = 1
        beginning[row, : len(example.beginning)] = torch.tensor(example.beginning, dtype=torch.int64)
        expected = example.answer or [IGNORED]
        first = row * width + width - length + example.prompt_length - 1
        places += range(first, first + len(expected))
        labels += expected
        counts.append(len(expected))
    count = torch.tensor(counts)
    texts = torch.arange(len(examples)).repeat_interleave(count)
    gate_label = torch.tensor([example.label for example in examples])
    asked = torch.tensor(places), texts, torch.tensor(labels), count.cumsum(0) - count
    return Batch(ids, mask, *asked, gate_label, beginning)


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


def logits_at_places(model: Any, batch: Batch) -> Tensor:
    """Run a causal LM; its output layer is given the batch's places only, (N, V) in the model's dtype."""

    def pick(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (inputs[0].flatten(0, 1)[batch.places][None],)

    handle = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        logits: Tensor = model(**_model_inputs(batch, model)).logits
    finally:
        handle.remove()
    return logits[0]


def _model_inputs(batch: Batch, model: Any) -> dict[str, Any]:
    positions = (batch.attention_mask.cumsum(-1) - 1).clamp_min(0)
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    accepted = inspect.signature(type(model).forward).parameters
    if "position_ids" in accepted:
        inputs["position_ids"] = positions
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs
