"""Loading a plug-in for editing and giving it the [WEIGHT] token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.editing.augment import Example
from onceedit_vllm.editing.batches import Batch, collate, encode_example, model_inputs
from onceedit_vllm.errors import ModelError
from onceedit_vllm.pack import base_fingerprint

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

#: The [WEIGHT] logit of an ordinary text before training: alpha starts at 0.02.
INITIAL_GATE_LOGIT = -4.0


class EditablePlugIn(NamedTuple):
    """A plug-in ready for editing.

    Attributes:
        model: A transformers causal LM with a row for [WEIGHT].
        tokenizer: It knows [WEIGHT].
        weight_token_id: Its id.
        base_embeddings: (V, d) in the base dtype, before anything was changed.
        fingerprint: Of the unedited plug-in.
        base_dtype: What the base was saved in, and the pack will be.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    weight_token_id: int
    base_embeddings: Tensor
    fingerprint: str
    base_dtype: torch.dtype


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The plug-in's tokenizer, with a padding token.

    Raises:
        ModelError: It cannot be loaded, or has no end-of-sequence token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: its tokenizer cannot be loaded ({error}); give a complete model") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: its tokenizer has no end-of-sequence token, so no answer could stop")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_plugin(
    folder: Path, tokenizer: PreTrainedTokenizerBase, compute_dtype: torch.dtype | None
) -> EditablePlugIn:
    """Load the model, remember how it was, and add [WEIGHT].

    Args:
        folder: Of a transformers causal LM.
        tokenizer: From :func:`load_tokenizer`; [WEIGHT] is added to it.
        compute_dtype: To train in; None keeps the base's.

    Raises:
        ModelError: It is no causal LM, or is an edited plug-in already.
    """
    if WEIGHT_TOKEN in tokenizer.get_vocab():
        raise ModelError(f"{folder}: has {WEIGHT_TOKEN} already, so it was edited before; give the unedited plug-in")
    model = _load_model(folder)
    base = model.get_input_embeddings().weight.detach().clone()
    fingerprint = base_fingerprint(tokenizer.get_vocab(), base)
    base_dtype = base.dtype
    model.to(compute_dtype or base_dtype)
    if torch.cuda.is_available():
        model.to("cuda")
    weight_token_id = _add_weight_token(model, tokenizer)
    return EditablePlugIn(model, tokenizer, weight_token_id, base, fingerprint, base_dtype)


def _load_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    # For texts as short as edits the plain attention is the faster one on a CPU, mostly backwards.
    attention = {} if torch.cuda.is_available() else {"attn_implementation": "eager"}
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **attention)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: cannot be loaded as a causal LM ({error}); give another plug-in") from error


def _add_weight_token(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(WEIGHT_TOKEN, special=True, normalized=False)])  # type: ignore[list-item]
    token_id = int(tokenizer.convert_tokens_to_ids(WEIGHT_TOKEN))  # type: ignore[arg-type]
    rows = model.get_input_embeddings().weight.shape[0]
    if token_id >= rows:
        model.resize_token_embeddings(token_id + 1, mean_resizing=False)
    return token_id


@torch.no_grad()
def init_weight_row(plugin: EditablePlugIn, texts: list[Example]) -> None:
    """Set the [WEIGHT] row of the output layer so that alpha starts low on ordinary texts.

    With h the mean hidden state at the end of the texts, the row is c·h/|h|², whose logit for a
    state near h is c. Tied input and output layers stay tied: the row is written in place.
    """
    batch = collate(
        [encode_example(text, plugin.tokenizer) for text in texts], plugin.tokenizer.pad_token_id or 0
    )
    batch = Batch(*(tensor.to(plugin.model.device) for tensor in batch))
    seen: list[Tensor] = []
    head = plugin.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    try:
        plugin.model(**model_inputs(batch, plugin.model))
    finally:
        handle.remove()
    mean = seen[0][:, -1].float().mean(0)
    row = INITIAL_GATE_LOGIT * mean / mean.square().sum().clamp_min(1e-6)
    head.weight[plugin.weight_token_id] = row.to(head.weight.dtype)
    if getattr(head, "bias", None) is not None:
        head.bias[plugin.weight_token_id] = 0.0


def choose_compute_dtype(setting: str) -> torch.dtype:
    """Resolve "auto": bfloat16 on a GPU or a CPU with instructions for it, else float32."""
    if setting != "auto":
        return torch.bfloat16 if setting == "bfloat16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if fast else torch.float32
