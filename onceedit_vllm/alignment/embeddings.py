"""A model's input embedding table, read off its checkpoint without loading the model."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import AlignmentError

if TYPE_CHECKING:
    from torch import Tensor

# How transformers' causal LMs call their input embeddings.
_TABLE = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|tokens_embed|embeddings?)\.weight$"
)
_OTHER_TOWER = re.compile(r"vision|visual|audio|image|encoder\.|position")


def read_config(folder: Path) -> dict[str, Any]:
    """The text model's part of ``config.json``.

    Raises:
        AlignmentError: The folder has no readable config.json.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AlignmentError(
            f"{folder} is not a model folder: config.json cannot be read ({error})"
        ) from error
    text = config.get("text_config")
    return config | text if isinstance(text, dict) else config


def load_embeddings(folder: Path) -> Tensor:
    """The input embeddings as stored: (V, d), bfloat16, float16 or float32.

    Reads the one tensor from safetensors where its name is recognised; loads the model otherwise.

    Raises:
        AlignmentError: The folder is no model, or has no embedding table that fits its config.
    """
    config = read_config(folder)
    found = _find_in_safetensors(folder, config.get("vocab_size"))
    table = _read(*found) if found else _load_through_model(folder)
    if table.dim() != 2 or not table.is_floating_point():
        raise AlignmentError(f"the input embeddings of {folder} are {table.dtype} {tuple(table.shape)}")
    return table


def tensor_fingerprint(tensor: Tensor) -> str:
    """sha256 over dtype, shape and bytes."""
    import torch

    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _find_in_safetensors(folder: Path, vocab_size: int | None) -> tuple[Path, str] | None:
    """The file and name of the one tensor that can be the table; None where that is not clear."""
    candidates = []
    for file, name in _tensor_names(folder):
        if _TABLE.search(name) and not _OTHER_TOWER.search(name):
            candidates.append((file, name))
    if vocab_size is not None:
        candidates = [found for found in candidates if _shape(*found)[0] >= vocab_size]
    return candidates[0] if len(candidates) == 1 else None


def _tensor_names(folder: Path) -> list[tuple[Path, str]]:
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    try:
        if index.exists():
            weights = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            return [(folder / file, name) for name, file in weights.items()]
        names = []
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                names += [(file, name) for name in tensors.keys()]  # noqa: SIM118
        return names
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise AlignmentError(
            f"the weights in {folder} cannot be read ({error}); fetch the model again"
        ) from error


def _shape(file: Path, name: str) -> list[int]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            shape: list[int] = tensors.get_slice(name).get_shape()
            return shape
    except (OSError, SafetensorError) as error:
        raise AlignmentError(f"{file} cannot be read ({error}); fetch the model again") from error


def _read(file: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        table: Tensor = tensors.get_tensor(name)
        return table


def _load_through_model(folder: Path) -> Tensor:
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
    except (OSError, ValueError) as error:
        raise AlignmentError(f"{folder} cannot be loaded as a causal LM: {error}") from error
    table: Tensor = model.get_input_embeddings().weight.detach().clone()
    return table
