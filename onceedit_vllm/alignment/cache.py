"""Alignments on disk: one folder each, named by a fingerprint of everything that went in."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.folders import sha256_of, write_file, written_folder

if TYPE_CHECKING:
    from torch import Tensor

#: Raised whenever the same inputs would give other tensors, or are identified in another way.
METHOD_VERSION = 4

_TENSORS = "alignment.safetensors"
_IDENTITY = "alignment.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        OSError: The cache cannot be written, or its disk is full.
    """
    from safetensors.torch import save

    # As bytes: where the disk is full, writing them raises an OSError, and safetensors one of its own.
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    stamp = {"method_version": METHOD_VERSION, **identity, "sha256": hashlib.sha256(content).hexdigest()}
    if load_entry(folder) is not None:
        return  # another process was faster; its entry is as good
    with written_folder(folder, replace=True) as made:
        (made / _TENSORS).write_bytes(content)
        (made / _IDENTITY).write_text(json.dumps(stamp, indent=2, sort_keys=True), encoding="utf-8")


def remove_entry(folder: Path) -> None:
    """Make room for an entry that cannot be used; what may not be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)


def remembered(cache_root: Path, key: str, make: Callable[[], str]) -> str:
    """A sha256 that takes seconds to make, kept under another one that does not.

    Args:
        cache_root: Where; a cache that cannot be written is as good as none.
        key: What was kept, or is to be.
        make: Makes it.
    """
    file = cache_root / "tokenizers" / key
    try:
        kept = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        kept = ""
    if _SHA256.fullmatch(kept):
        return kept
    made = make()
    with suppress(OSError):
        write_file(file, made)
    return made


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
