"""What a plug-in's architecture must be, told from the model alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceedit_vllm.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADVICE = "take a plug-in with plain attention, such as a Llama, Qwen, Gemma or GPT-2"


def num_attention_layers(model: PreTrainedModel) -> int:
    """Layers that keep keys and values.

    Raises:
        ModelError: Some layer keeps anything else (Mamba, linear attention, hybrids), or the model
            is an encoder-decoder.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if model.config.is_encoder_decoder or getattr(model, "_is_stateful", False):
        raise unfit(model, f"it is no decoder with a KV cache; {ADVICE}")
    layers = DynamicCache(config=model.config).layers
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    others = sorted({type(layer).__name__ for layer in layers if type(layer) not in plain})
    if others:
        raise unfit(model, f"its cache holds {', '.join(others)}; {ADVICE}")
    return len(layers)


def num_embeddings(model: PreTrainedModel) -> int:
    """Token ids the model can read."""
    return int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]


def unfit(model: PreTrainedModel, why: str) -> ModelError:
    """The error for a model that cannot be a plug-in."""
    name = f"{type(model).__name__} (model_type {model.config.model_type!r})"
    return ModelError(f"{name} cannot be a plug-in: {why}")
