"""From a pack's folder to a plug-in that runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.dtype import plugin_dtype
from onceedit_vllm.plugin.kv_pool import probe_layers
from onceedit_vllm.plugin.prefixes import BLOCK
from onceedit_vllm.plugin.runtime import PlugInRuntime
from onceedit_vllm.plugin.trial import refuse_unfaithful

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger("onceedit_vllm.plugin")


def load_runtime(model_dir: Path, weight_token_id: int, config: PlugInConfig) -> PlugInRuntime:
    """Load a plug-in and try it.

    Args:
        model_dir: The plug-in and its tokenizer, loadable by transformers.
        weight_token_id: The [WEIGHT] token.
        config: Device, dtype, memory, and longest text in tokens, specials included: at most the model's, and
            where none is given at most what the memory holds.

    Raises:
        BadInputError: The memory does not hold one text of the length that was asked for.
        ModelError: The model cannot be loaded (pickled weights and code of its own are not), the
            device is not there, or the model cannot be a plug-in.
        AlignmentError: The tokenizer cannot be loaded.
    """
    model = _load(model_dir, config)
    runtime = PlugInRuntime(
        model,
        weight_token_id,
        _max_context(model, config),
        kv_cache_bytes=config.kv_cache_bytes,
        num_tokens=_num_tokens(model_dir),
    )
    refuse_unfaithful(runtime)
    return runtime


def _load(model_dir: Path, config: PlugInConfig) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # What the pack's check has seen is what is loaded: no pickles, no code, nothing from elsewhere.
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(model_dir),
            # With another one transformers changes torch's default for the whole process while it loads, and
            # a step beside it would make tensors of the wrong type.
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        model.to(torch.device(device), plugin_dtype(config.dtype, torch.device(device)))
    except Exception as error:
        raise ModelError(
            f"the plug-in in {model_dir} cannot be loaded to {device!r} ({error}); check the pack with "
            "`onceedit inspect`, and plugin.device"
        ) from error
    loaded: PreTrainedModel = model
    return loaded


def _num_tokens(model_dir: Path) -> int:
    """Token ids that mean something; the model may have more rows."""
    vocabulary: dict[str, int] = load_tokenizer(model_dir).get_vocab()
    return max(vocabulary.values()) + 1


def _max_context(model: PreTrainedModel, config: PlugInConfig) -> int:
    longest = _longest_text(model, config)
    if config.max_context is not None:
        return longest
    held = config.kv_cache_bytes // sum(shape.bytes_per_token for shape in probe_layers(model))
    if held < longest:
        logger.info(
            "onceedit: the plug-in reads %d tokens at most, of %d that its model could: what "
            "plugin.kv_cache_bytes holds",
            held,
            longest,
        )
    return max(min(longest, held // BLOCK * BLOCK), BLOCK)


def _longest_text(model: PreTrainedModel, config: PlugInConfig) -> int:
    text = model.config.get_text_config(decoder=True)
    limits = [config.max_context, getattr(text, "max_position_embeddings", None), _stable_rope(text)]
    known = [limit for limit in limits if limit is not None]
    if not known:
        raise ModelError(
            f"{type(model).__name__} names no longest text; set plugin.max_context to what it can read"
        )
    return min(known)


def _stable_rope(text: Any) -> int | None:
    """Positions after which the rotary frequencies change with the length of the text.

    Keys cached before would then differ from those of the whole text.
    """
    rope = getattr(text, "rope_parameters", None) or {}
    by_layer_type = [part for part in rope.values() if isinstance(part, dict)]
    limits = [
        part.get("original_max_position_embeddings") or text.max_position_embeddings
        for part in (rope, *by_layer_type)
        if part.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(limits) if limits else None
