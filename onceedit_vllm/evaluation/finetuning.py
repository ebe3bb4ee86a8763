"""The LLM itself, fine-tuned on the same edits: what is done where there is no plug-in."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evaluation.record import Frozen
from onceedit_vllm.folders import written_folder

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.editing.batches import Batch, Encoded

#: Mini-batches over all edits, the loss on the answer and its end only: what methods that edit by
#: fine-tuning found to matter most (arXiv:2509.22072, with at most 25 epochs).
EPOCHS, BATCH_SIZE, LEARNING_RATE = 25, 8, 1e-4
_FILE = "finetuning.json"


class FineTuning(Frozen):
    """How a fine-tuned LLM came about.

    Attributes:
        seconds: Of the training, loading and saving left out.
        epochs: Passes over the edits, at most `EPOCHS`.
        learnt: Edits of which every token was the likeliest when last met.
        edits: How many there were.
        fingerprint: Of the LLM and the edits.
    """

    seconds: float
    epochs: int
    learnt: int
    edits: int
    fingerprint: str


class _Course(NamedTuple):
    epochs: int
    learnt: int
    seconds: float


def fine_tune(llm: Path, edits: Sequence[EditRecord], out: Path, *, visible: bool) -> FineTuning:
    """Fine-tune an LLM on the edits' own prompts, until it says all targets, and save it.

    All weights are trained but the embeddings, in float32.

    Args:
        llm: The LLM's folder.
        edits: The edits; their rephrases are not trained.
        out: The folder to be. One that was made before of the same LLM and edits is left as it is.
        visible: Show a progress bar.

    Raises:
        ModelError: The LLM cannot be loaded.
    """
    from onceedit_vllm.editing.plugin_model import load_tokenizer

    fingerprint = _fingerprint(llm, edits)
    known = read_fine_tuning(out)
    if known is not None and known.fingerprint == fingerprint:
        return known
    tokenizer, model = load_tokenizer(llm), _load_model(llm)
    course = _train(model, tokenizer, edits, visible)
    tuning = FineTuning(
        seconds=round(course.seconds, 1),
        epochs=course.epochs,
        learnt=course.learnt,
        edits=len(edits),
        fingerprint=fingerprint,
    )
    with written_folder(out, replace=True) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / _FILE).write_text(tuning.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return tuning


def read_fine_tuning(folder: Path) -> FineTuning | None:
    """What is said in a folder that :func:`fine_tune` wrote; None for others."""
    try:
        return FineTuning.model_validate_json((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def _fingerprint(llm: Path, edits: Sequence[EditRecord]) -> str:
    digest = hashlib.sha256((llm / "config.json").read_bytes())
    digest.update(f"{llm.resolve()} {EPOCHS} {BATCH_SIZE} {LEARNING_RATE}".encode())
    for edit in edits:
        digest.update(f"{edit.prompt}\n{edit.target}\n".encode())
    return digest.hexdigest()


def _load_model(llm: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from onceedit_vllm.errors import ModelError

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ModelError(f"{llm}: no causal LM can be loaded ({error}); give a complete model") from error
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        module.requires_grad_(False)
    return model.to("cuda" if torch.cuda.is_available() else "cpu").train()


def _train(model: Any, tokenizer: Any, edits: Sequence[EditRecord], visible: bool) -> _Course:
    import torch

    from onceedit_vllm.editing.augment import Example
    from onceedit_vllm.editing.batches import encode_example, make_batches
    from onceedit_vllm.terminal import progress_bar

    encoded = [encode_example(Example(edit.prompt, edit.target, 1.0, -1), tokenizer) for edit in edits]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    started, learnt, epochs = time.monotonic(), 0, 0
    with progress_bar(*_columns(), shown=visible) as bar:
        task = bar.add_task("fine-tuning the LLM", total=EPOCHS, learnt=0, edits=len(edits))
        while epochs < EPOCHS and learnt < len(edits):
            batches = make_batches(encoded, BATCH_SIZE, random.Random(epochs))
            learnt = sum(_step(model, tokenizer, batch, optimizer) for batch in batches)
            epochs += 1
            bar.update(task, advance=1, learnt=learnt)
    return _Course(epochs, learnt, time.monotonic() - started)


def _step(model: Any, tokenizer: Any, examples: list[Encoded], optimizer: Any) -> int:
    """One step; returns how many of the examples were right before it."""
    from torch import nn

    from onceedit_vllm.editing.batches import Batch, collate

    padded = collate(examples, tokenizer.pad_token_id)
    loss, right = _loss(model, Batch(*(tensor.to(model.device) for tensor in padded)))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return right


def _loss(model: Any, batch: Batch) -> tuple[Tensor, int]:
    """The mean over the answers of their mean token loss, and how many answers are right throughout."""
    from onceedit_vllm.editing.batches import logits_at_places
    from onceedit_vllm.editing.objective import mean_answer_loss, missed_labels

    log_probs = logits_at_places(model, batch).float().log_softmax(-1)
    missed = batch.texts[missed_labels(log_probs, batch.labels) > 0]
    return mean_answer_loss(log_probs, batch), len(batch.gate) - len(missed.unique())


def _columns() -> tuple[Any, ...]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

    counted = TextColumn("{task.fields[learnt]} of {task.fields[edits]} right")
    return TextColumn("{task.description}"), BarColumn(), counted, TimeElapsedColumn()
