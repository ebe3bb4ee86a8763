"""A trial of a plug-in before its first request: does it read in parts what it reads at once?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from onceedit_vllm.plugin.architecture import ADVICE, num_embeddings, unfit
from onceedit_vllm.plugin.runtime import PlugInRuntime, PlugInStep

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def refuse_unfaithful(runtime: PlugInRuntime) -> None:
    """Read a few tokens through the KV slots and at once, and compare; every host does, at its start.

    Raises:
        ModelError: The two disagree, or the model does not use its cache as others do.
    """
    model = runtime.model
    try:
        through_slots = _read_in_parts(runtime)
        with torch.inference_mode():
            ids = torch.tensor([_probe(model, 6)], device=model.device)
            at_once = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1].float()
    except Exception as error:
        raise unfit(model, f"a trial step failed ({error!r})") from error
    used, there_are = runtime.num_layers_used()
    if used < there_are:
        raise unfit(
            model,
            f"{there_are - used} of its {there_are} layers do not keep their keys and values in the cache; "
            f"{ADVICE}",
        )
    # Only gross errors: wrong positions, masks or state. Rounding in bfloat16 is far below.
    difference = (through_slots - at_once).abs().max()
    if difference > 1e-3 + 0.05 * (at_once.max() - at_once.min()):
        raise unfit(
            model,
            f"reading in parts differs from reading at once by {difference:.3g} in its logits; {ADVICE}",
        )


def refuse_speechless(runtime: PlugInRuntime, text_ids: Sequence[int]) -> None:
    """Let it read a text; before it takes the place of a plug-in that answers.

    Raises:
        ModelError: It cannot, or what it says then is not a number.
    """
    slot = runtime.open()
    try:
        logits = runtime.last_logits([PlugInStep(slot, 0, text_ids)])
    except Exception as error:
        raise unfit(runtime.model, f"it cannot read the first of its edits ({error!r})") from error
    finally:
        runtime.close(slot)
    if not logits.isfinite().all():
        raise unfit(runtime.model, "what it says to the first of its edits is not a number")


def _read_in_parts(runtime: PlugInRuntime) -> torch.Tensor:
    """Logits after six tokens, beside a shorter text and after a rollback."""
    tokens = _probe(runtime.model, 7)
    slot, neighbour = runtime.open(), runtime.open()
    try:
        runtime.last_logits([PlugInStep(slot, 0, [*tokens[:4], tokens[6]])])
        steps = [PlugInStep(neighbour, 0, tokens[:3]), PlugInStep(slot, 1, tokens[4:6])]
        return runtime.last_logits(steps)[1]
    finally:
        runtime.close(slot)
        runtime.close(neighbour)


def _probe(model: PreTrainedModel, length: int) -> list[int]:
    """Some token ids of the model's vocabulary."""
    num_tokens = num_embeddings(model)
    return [(7 * i + 3) % num_tokens for i in range(length)]
