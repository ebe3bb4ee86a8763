"""The plug-in inside the worker's own process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.dtype import plugin_dtype
from onceedit_vllm.plugin.host import PlugInOutput, PlugInStep
from onceedit_vllm.plugin.runtime import PlugInRuntime
from onceedit_vllm.plugin.trial import refuse_unfaithful

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LocalHost:
    """Runs the plug-in in this process; a :class:`~onceedit_vllm.plugin.host.PlugInHost`.

    On a CPU a step runs when it is submitted, on a GPU it is started then.

    Args:
        model_dir: The plug-in and its tokenizer, loadable by transformers.
        weight_token_id: The [WEIGHT] token.
        config: Device, dtype and longest text.

    Attributes:
        max_context: Longest text in tokens, specials included: the settings', at most the model's.

    Raises:
        ModelError: The model cannot be loaded (pickled weights and code of its own are not), the
            device is not there, or the model cannot be a plug-in.
        AlignmentError: The tokenizer cannot be loaded.
    """

    def __init__(self, model_dir: Path, weight_token_id: int, config: PlugInConfig) -> None:
        model = _load(model_dir, config)
        self.max_context = _max_context(model, config)
        runtime = PlugInRuntime(
            model,
            weight_token_id,
            self.max_context,
            kv_cache_bytes=config.kv_cache_bytes,
            num_tokens=_num_tokens(model_dir),
        )
        refuse_unfaithful(runtime)
        self._runtime: PlugInRuntime | None = runtime
        self._results: dict[int, PlugInOutput | Exception] = {}
        self._num_tickets = 0

    def open(self) -> int:
        """See the protocol.

        Raises:
            ModelError: The host was shut down.
        """
        return self._running().open()

    def close(self, slot: int) -> None:
        """See the protocol. A slot that is not open is left alone."""
        if self._runtime is not None:
            self._runtime.close(slot)

    def submit(self, steps: Sequence[PlugInStep]) -> int:
        """See the protocol. Never raises: what goes wrong comes out of :meth:`collect`."""
        ticket = self._num_tickets
        self._num_tickets += 1
        try:
            self._results[ticket] = self._running().step(steps)
        except Exception as error:
            self._results[ticket] = error
        return ticket

    def collect(self, ticket: int) -> PlugInOutput:
        """See the protocol. Tensors are on the plug-in's device."""
        result = self._results.pop(ticket, None)
        if result is None:
            raise ModelError(f"plug-in ticket {ticket} is unknown or was collected before; submit() again")
        if isinstance(result, ModelError):
            raise result
        if isinstance(result, Exception):
            raise ModelError(f"the plug-in failed on a step: {result!r}; close its slots") from result
        return result

    def shutdown(self) -> None:
        """See the protocol."""
        self._runtime = None
        self._results.clear()

    def _running(self) -> PlugInRuntime:
        if self._runtime is None:
            raise ModelError("the plug-in host was shut down; make a new one")
        return self._runtime


def _load(model_dir: Path, config: PlugInConfig) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # What the pack's check has seen is what is loaded: no pickles, no code, nothing from elsewhere.
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(model_dir),
            dtype=plugin_dtype(config.dtype, torch.device(device)),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        model.to(torch.device(device))
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
