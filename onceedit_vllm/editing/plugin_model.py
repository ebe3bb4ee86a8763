"""A plug-in in training: which of its weights are trained, its [WEIGHT] row, and its arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.editing.augment import Example
from onceedit_vllm.editing.batches import (
    Batch,
    Encoded,
    collate,
    encode_example,
    in_length_order,
    logits_at_places,
)
from onceedit_vllm.errors import ModelError
from onceedit_vllm.machine import attention_of_any_shape, has_fast_bfloat16
from onceedit_vllm.pack import base_fingerprint

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from onceedit_vllm.pack import EditPack

#: [WEIGHT] logits that the first row aims at: alpha 0.02 outside the edits, 0.73 within.
SHUT_LOGIT, OPEN_LOGIT = -4.0, 1.0
#: Strength of the regression that makes it, relative to the states' mean square.
RIDGE = 0.03


@dataclass(frozen=True)
class EditablePlugIn:
    """A plug-in ready for editing.

    The embeddings and the lowest layers are frozen, so that a step costs less and what the maps are made
    of stays what it was. The [WEIGHT] row is trained as a parameter of its own and stands in for the
    output layer's, inside the model's own forward.

    Attributes:
        model: A transformers causal LM in float32 with a row for [WEIGHT].
        tokenizer: It knows [WEIGHT].
        weight_token_id: Its id.
        weight_row: (d,) float32, what the output layer multiplies with for [WEIGHT].
        base_embeddings: (V, d) in the base dtype, before anything was changed.
        fingerprint: Of the unedited plug-in.
        base_dtype: What the base was saved in, and the pack will be.
        compute_dtype: Of the matrix products in training; the weights are float32 either way.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    weight_token_id: int
    weight_row: nn.Parameter
    base_embeddings: Tensor
    fingerprint: str
    base_dtype: torch.dtype
    compute_dtype: torch.dtype

    def trained(self) -> dict[str, nn.Parameter]:
        """The weights that training changes, by name."""
        named = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        return {WEIGHT_TOKEN: self.weight_row, **named}

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The context that forward passes of training and measuring run in."""
        lower = self.compute_dtype != torch.float32
        device = self.model.device.type
        with attention_of_any_shape(device), torch.autocast(device, dtype=torch.bfloat16, enabled=lower):
            yield

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Write the model, in the base dtype and with its [WEIGHT] row, and the tokenizer."""
        head = self.model.get_output_embeddings()
        head.weight[self.weight_token_id] = self.weight_row.to(head.weight.dtype)
        self.model.to(self.base_dtype).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


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
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    compute_dtype: torch.dtype = torch.float32,
    trained_share: float = 1.0,
) -> EditablePlugIn:
    """Load the model, remember how it was, add [WEIGHT], and freeze what is not trained.

    Args:
        folder: Of a transformers causal LM.
        tokenizer: From :func:`load_tokenizer`; [WEIGHT] is added to it.
        compute_dtype: Of the matrix products: float32 or bfloat16.
        trained_share: Share of the layers that are trained, counted from the top.

    Raises:
        ModelError: It is no causal LM, or is an edited plug-in already.
    """
    if WEIGHT_TOKEN in tokenizer.get_vocab():
        raise ModelError(f"{folder}: was edited before (it has {WEIGHT_TOKEN}); give the unedited plug-in")
    model = _load_model(folder)
    base = model.get_input_embeddings().weight.detach().clone()
    fingerprint = base_fingerprint(tokenizer.get_vocab(), base)
    model.to(torch.float32)
    if torch.cuda.is_available():
        model.to("cuda")
    weight_token_id = _add_weight_token(model, tokenizer)
    _freeze(model, trained_share)
    row = _own_weight_row(model, weight_token_id)
    return EditablePlugIn(
        model, tokenizer, weight_token_id, row, base, fingerprint, base.dtype, compute_dtype
    )


def load_edited(pack: EditPack, compute_dtype: torch.dtype, trained_share: float) -> EditablePlugIn:
    """Load a pack's plug-in as it is, to be trained further: what it was before its edits is the pack's.

    Args:
        pack: Of any edits.
        compute_dtype: Of the matrix products: float32 or bfloat16.
        trained_share: Share of the layers that are trained, counted from the top.

    Raises:
        ModelError: Its model cannot be loaded.
    """
    tokenizer = load_tokenizer(pack.model_dir)
    token_id = pack.manifest.weight_token_id
    if tokenizer.get_vocab().get(WEIGHT_TOKEN) != token_id:
        raise ModelError(
            f"{pack.root}: its tokenizer has no {WEIGHT_TOKEN} with id {token_id}; make it again"
        )
    model = _load_model(pack.model_dir)
    base = pack.base_embeddings()
    model.to(torch.float32)
    if torch.cuda.is_available():
        model.to("cuda")
    _freeze(model, trained_share)
    row = _own_weight_row(model, token_id)
    fingerprint = pack.manifest.base_fingerprint
    return EditablePlugIn(model, tokenizer, token_id, row, base, fingerprint, base.dtype, compute_dtype)


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


def _freeze(model: Any, trained_share: float) -> None:
    """Train the topmost layers and what comes after them; not the embeddings, tied or not."""
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        module.requires_grad_(False)
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = max(stacks, key=len, default=())
    for layer in layers[: len(layers) - math.ceil(trained_share * len(layers))]:
        layer.requires_grad_(False)


def _own_weight_row(model: Any, token_id: int) -> nn.Parameter:
    """A parameter that the output layer uses in place of its row for [WEIGHT].

    Inside the layer, so that whatever the model does with its logits afterwards is done to this one too.
    """
    head = model.get_output_embeddings()
    row = nn.Parameter(head.weight[token_id].detach().clone())
    if getattr(head, "bias", None) is not None:
        head.bias.data[token_id] = 0.0

    def stand_in(_: Any, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        own = inputs[0].float() @ row
        return logits.index_copy(
            -1, torch.tensor([token_id], device=logits.device), own.to(logits)[..., None]
        )

    head.register_forward_hook(stand_in)
    return row


@torch.no_grad()
def init_weight_row(plugin: EditablePlugIn, examples: Sequence[Example]) -> None:
    """Set the [WEIGHT] row from the hidden states of a first round of examples.

    The row is the ridge regression of the gate's logit on the state at the end of the prompt, with
    `SHUT_LOGIT` wanted for negatives and `OPEN_LOGIT` for positives. A row grown from zero would
    take the whole training to reach a size at which the gate can be sure.
    """
    states = _gate_states(plugin, examples)
    labels = torch.tensor([example.label for example in examples], device=states.device)
    wanted = torch.where(labels > 0.5, OPEN_LOGIT, SHUT_LOGIT)
    gram = states @ states.T
    strength = RIDGE * gram.diagonal().mean()
    dual = torch.linalg.solve(gram + strength * torch.eye(len(examples), device=gram.device), wanted)
    plugin.weight_row.copy_(dual @ states)


def _gate_states(plugin: EditablePlugIn, examples: Sequence[Example], batch_size: int = 32) -> Tensor:
    """What the output layer is given at the end of each text, (N, d) float32."""
    plain = [encode_example(example._replace(target=None), plugin.tokenizer) for example in examples]
    seen: list[Tensor] = []
    head = plugin.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, -1].float()))
    plugin.model.eval()
    order, batches = in_length_order(plain, batch_size)
    try:
        for batch in batches:
            with plugin.arithmetic():
                logits_at_places(plugin.model, to_tensors(batch, plugin))
    finally:
        handle.remove()
    stacked = torch.cat(seen)
    return torch.empty_like(stacked).index_copy_(0, torch.tensor(order, device=stacked.device), stacked)


def to_tensors(examples: Sequence[Encoded], plugin: EditablePlugIn) -> Batch:
    """One padded batch on the plug-in's device."""
    batch = collate(examples, plugin.tokenizer.pad_token_id or 0)
    return Batch(*(tensor.to(plugin.model.device) for tensor in batch))


def choose_compute_dtype(setting: str) -> torch.dtype:
    """Resolve "auto": bfloat16 where it is fast, else float32."""
    if setting == "auto":
        return torch.bfloat16 if has_fast_bfloat16() else torch.float32
    return torch.bfloat16 if setting == "bfloat16" else torch.float32
