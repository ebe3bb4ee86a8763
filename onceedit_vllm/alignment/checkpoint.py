"""What a model's folder says about its weights, without reading them: names, shapes, number of parameters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import AlignmentError

if TYPE_CHECKING:
    from torch import Tensor

#: Parts of a model that do not read text, and tables of positions.
OTHER_TOWER = re.compile(r"vision|visual|audio|image|encoder\.|position")

_WEIGHTS = "model.safetensors"
# How safetensors names numbers that are one parameter each; packed ones are integers.
_FLOATING = re.compile(r"B?F\d")


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


def tensor_names(folder: Path) -> list[tuple[Path, str]]:
    """File and name of every tensor in the folder's safetensors; empty where it has none.

    Raises:
        AlignmentError: The index or a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    index = folder / f"{_WEIGHTS}.index.json"
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


def tensor_shape(file: Path, name: str) -> tuple[int, ...]:
    """The shape of a tensor, from the header of its file.

    Raises:
        AlignmentError: The file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return tuple(tensors.get_slice(name).get_shape())
    except (OSError, SafetensorError) as error:
        raise AlignmentError(f"{file} cannot be read ({error}); fetch the model again") from error


def map_tensor(file: Path, name: str) -> Tensor:
    """A tensor as stored, mapped from its file: pages are read when, and if, they are looked at."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        table: Tensor = tensors.get_tensor(name)
        return table


def count_parameters(folder: Path) -> int | None:
    """Parameters that a token passes through on its way: of the text model, tied ones once.

    All experts of a mixture count, though a token meets a few of them.

    Returns:
        None where the headers do not tell: no safetensors, a shard missing, or packed weights.
    """
    try:
        if read_config(folder).get("quantization_config"):
            return None
        return _count(tensor_names(folder)) or None
    except AlignmentError:
        return None


def _count(names: Iterable[tuple[Path, str]]) -> int:
    from safetensors import SafetensorError, safe_open

    by_file: dict[Path, list[str]] = {}
    for file, name in names:
        if not OTHER_TOWER.search(name):
            by_file.setdefault(file, []).append(name)
    total = 0
    for file, wanted in by_file.items():
        try:
            with safe_open(file, framework="pt") as tensors:
                slices = [tensors.get_slice(name) for name in wanted]
                total += sum(math.prod(s.get_shape()) for s in slices if _FLOATING.match(s.get_dtype()))
        except (OSError, SafetensorError) as error:
            raise AlignmentError(f"{file} cannot be read ({error}); fetch the model again") from error
    return total
