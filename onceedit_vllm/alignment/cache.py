"""Alignments on disk: one folder each, named by a fingerprint of everything that went in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.folders import sha256_of, written_folder

if TYPE_CHECKING:
    from torch import Tensor

#: Raised whenever the same inputs would give other tensors, or are identified in another way.
METHOD_VERSION = 3

_TENSORS = "alignment.safetensors"
_IDENTITY = "alignment.json"


def fingerprint(identity: dict[str, Any]) -> str:
    """sha256 of what determines an alignment, the version of the method included."""
    text = json.dumps({"method_version": METHOD_VERSION, **identity}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def entry_folder(cache_root: Path, key: str) -> Path:
    """Where the alignment of a fingerprint is kept."""
    return cache_root / "alignments" / key


def save_entry(folder: Path, tensors: dict[str, Tensor], identity: dict[str, Any]) -> None:
    """Write an entry in one move: a reader sees all of it or nothing. A good one that is there stays.

    Raises:
        OSError: The cache cannot be written.
    """
    from safetensors.torch import save_file

    if load_entry(folder) is not None:
        return  # another process was faster; its entry is as good
    with written_folder(folder, replace=True) as made:
        save_file({name: t.contiguous() for name, t in tensors.items()}, made / _TENSORS)
        checked = {"method_version": METHOD_VERSION, **identity, "sha256": sha256_of(made / _TENSORS)}
        (made / _IDENTITY).write_text(json.dumps(checked, indent=2, sort_keys=True), encoding="utf-8")


def load_entry(folder: Path) -> dict[str, Tensor] | None:
    """The tensors of an entry, mapped from its file; None where it is absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        identity = json.loads((folder / _IDENTITY).read_text(encoding="utf-8"))
        if identity["sha256"] != sha256_of(folder / _TENSORS):
            return None
        tensors: dict[str, Tensor] = load_file(folder / _TENSORS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return tensors
