"""Which models cannot be plug-ins, found out before the first request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.host import PlugInStep

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from onceedit_vllm.plugin.runtime import PlugInRuntime

_ADVICE = "take a plug-in with plain attention, such as a Llama, Qwen, Gemma or GPT-2"


def num_attention_layers(model: PreTrainedModel) -> int:
    """Layers that keep keys and values.

    Raises:
        ModelError: Some layer keeps anything else (Mamba, linear attention, hybrids), or the model
            is an encoder-decoder.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if model.config.is_encoder_decoder or getattr(model, "_is_stateful", False):
        raise ModelError(f"{_name(model)} cannot be a plug-in: it is no decoder with a KV cache; {_ADVICE}")
    layers = DynamicCache(config=model.config).layers
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    others = sorted({type(layer).__name__ for layer in layers if type(layer) not in plain})
    if others:
        kinds = ", ".join(others)
        raise ModelError(f"{_name(model)} cannot be a plug-in: its cache holds {kinds}; {_ADVICE}")
    return len(layers)


def num_embeddings(model: PreTrainedModel) -> int:
    """Token ids the model can read."""
    return int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]


def refuse_unfaithful(runtime: PlugInRuntime) -> None:
    """Read a few tokens through the KV slots and at once, and compare.

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
        raise ModelError(f"{_name(model)} cannot be a plug-in: a trial step failed ({error!r})") from error
    used, there_are = runtime.num_layers_used()
    if used < there_are:
        raise ModelError(
            f"{_name(model)} cannot be a plug-in: {there_are - used} of its {there_are} layers do not keep "
            f"their keys and values in the cache; {_ADVICE}"
        )
    # Only gross errors: wrong positions, masks or state. Rounding in bfloat16 is far below.
    difference = (through_slots - at_once).abs().max()
    if difference > 1e-3 + 0.05 * (at_once.max() - at_once.min()):
        raise ModelError(
            f"{_name(model)} cannot be a plug-in: reading in parts differs from reading at once by "
            f"{difference:.3g} in its logits; {_ADVICE}"
        )


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


def _name(model: PreTrainedModel) -> str:
    return f"{type(model).__name__} (model_type {model.config.model_type!r})"
