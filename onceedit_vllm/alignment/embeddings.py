"""A model's input embedding table, read off its checkpoint without loading the model."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.alignment.checkpoint import (
    OTHER_TOWER,
    map_tensor,
    read_config,
    tensor_names,
    tensor_shape,
)
from onceedit_vllm.errors import AlignmentError

if TYPE_CHECKING:
    from torch import Tensor

# How transformers' causal LMs call their input embeddings.
_TABLE = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|tokens_embed|embeddings?)\.weight$"
)
# Tables of layers that predict further tokens, or draft them; copies of the model's own.
_EXTRA = re.compile(r"\.\d+\.|(^|\.)(mtp|nextn|draft|eagle|medusa)\w*\.")
# How configs call the width of an embedding, the most exact name first.
_WIDTHS = ("word_embed_proj_dim", "hidden_size", "n_embd", "d_model")


def embeddings_shape(folder: Path) -> tuple[int, int]:
    """Rows and width of the input embeddings, from headers; without safetensors, from the config.

    Raises:
        AlignmentError: The folder is no model, or neither tells.
    """
    config = read_config(folder)
    found = _find_in_safetensors(folder, config.get("vocab_size"))
    shape = tensor_shape(*found) if found else ()
    if len(shape) == 2:
        return shape[0], shape[1]
    width = next((config[key] for key in _WIDTHS if isinstance(config.get(key), int)), None)
    if width is None or not isinstance(config.get("vocab_size"), int):
        raise AlignmentError(
            f"{folder} has no embedding table that can be told by its name, and its config.json has no "
            f"vocab_size or none of {', '.join(_WIDTHS)}; save the model with save_pretrained()"
        )
    return config["vocab_size"], width


def load_embeddings(folder: Path) -> Tensor:
    """The input embeddings as stored: (V, d), bfloat16, float16 or float32.

    Maps the tensor from safetensors where its name is recognised, and makes no copy. Loads the model
    otherwise.

    Raises:
        AlignmentError: The folder is no model, or has no embedding table that fits its config.
    """
    config = read_config(folder)
    found = _find_in_safetensors(folder, config.get("vocab_size"))
    table = map_tensor(*found) if found else _load_through_model(folder)
    if table.dim() != 2 or not table.is_floating_point():
        raise AlignmentError(f"the input embeddings of {folder} are {table.dtype} {tuple(table.shape)}")
    return table


def tensor_fingerprint(tensor: Tensor) -> str:
    """sha256 over dtype, shape and bytes; of a mapped tensor, straight from the file."""
    import torch

    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _find_in_safetensors(folder: Path, vocab_size: int | None) -> tuple[Path, str] | None:
    """The file and name of the model's own table; None where that is not clear."""
    candidates = []
    for file, name in tensor_names(folder):
        if _TABLE.search(name) and not OTHER_TOWER.search(name) and not _EXTRA.search(name):
            candidates.append((file, name))
    if vocab_size is not None:
        candidates = [found for found in candidates if tensor_shape(*found)[0] >= vocab_size]
    # The base model's table lies nearest to the root.
    depths = [name.count(".") for _, name in candidates]
    nearest = [found for found, depth in zip(candidates, depths, strict=True) if depth == min(depths)]
    return nearest[0] if len(nearest) == 1 else None


def _load_through_model(folder: Path) -> Tensor:
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
    except (OSError, ValueError) as error:
        raise AlignmentError(f"{folder} cannot be loaded as a causal LM: {error}") from error
    table: Tensor = model.get_input_embeddings().weight.detach().clone()
    return table
