"""Loading a plug-in for editing and giving it the [WEIGHT] token."""

from __future__ import annotations

from collections.abc import Sequence
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

#: [WEIGHT] logits that the first row aims at: alpha 0.02 outside the edits, 0.73 within.
SHUT_LOGIT, OPEN_LOGIT = -4.0, 1.0
#: Strength of the regression that makes it, relative to the states' mean square.
RIDGE = 0.03


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
        raise ModelError(f"{folder}: no tokenizer can be loaded ({error}); give a complete model") from error
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
        raise ModelError(f"{folder}: was edited before (it has {WEIGHT_TOKEN}); give the unedited plug-in")
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
        raise ModelError(f"{folder}: no causal LM can be loaded ({error}); give another plug-in") from error


def _add_weight_token(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(WEIGHT_TOKEN, special=True, normalized=False)])
    token_id: int = tokenizer.get_vocab()[WEIGHT_TOKEN]
    rows = model.get_input_embeddings().weight.shape[0]
    if token_id >= rows:
        model.resize_token_embeddings(token_id + 1, mean_resizing=False)
    return token_id


@torch.no_grad()
def init_weight_row(plugin: EditablePlugIn, examples: Sequence[Example]) -> None:
    """Set the [WEIGHT] row of the output layer from the hidden states of a first round of examples.

    The row is the ridge regression of the gate's logit on the state at the end of the prompt, with
    `SHUT_LOGIT` wanted for negatives and `OPEN_LOGIT` for positives. A row grown from zero would
    take the whole training to reach a size at which the gate can be sure. Tied input and output
    layers stay tied: the row is written in place.
    """
    states = _gate_states(plugin, examples)
    labels = torch.tensor([example.label for example in examples], device=states.device)
    wanted = torch.where(labels > 0.5, OPEN_LOGIT, SHUT_LOGIT)
    gram = states @ states.T
    strength = RIDGE * gram.diagonal().mean()
    dual = torch.linalg.solve(gram + strength * torch.eye(len(examples), device=gram.device), wanted)
    head = plugin.model.get_output_embeddings()
    head.weight[plugin.weight_token_id] = (dual @ states).to(head.weight.dtype)
    if getattr(head, "bias", None) is not None:
        head.bias[plugin.weight_token_id] = 0.0


def _gate_states(plugin: EditablePlugIn, examples: Sequence[Example], batch_size: int = 32) -> Tensor:
    """What the output layer is given at the end of each text, (N, d) float32."""
    plain = [example._replace(target=None) for example in examples]
    encoded = [encode_example(example, plugin.tokenizer) for example in plain]
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].ids))
    seen: list[Tensor] = []
    head = plugin.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1].float()))
    plugin.model.eval()
    try:
        for start in range(0, len(order), batch_size):
            chosen = [encoded[index] for index in order[start : start + batch_size]]
            batch = collate(chosen, plugin.tokenizer.pad_token_id or 0)
            batch = Batch(*(tensor.to(plugin.model.device) for tensor in batch))
            plugin.model(**model_inputs(batch, plugin.model))
    finally:
        handle.remove()
    stacked = torch.cat(seen)
    states = torch.empty_like(stacked)
    states[torch.tensor(order, device=states.device)] = stacked
    return states


def choose_compute_dtype(setting: str) -> torch.dtype:
    """Resolve "auto": bfloat16 on a GPU or a CPU with instructions for it, else float32."""
    if setting != "auto":
        return torch.bfloat16 if setting == "bfloat16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if fast else torch.float32
