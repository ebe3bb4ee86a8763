"""Alignments on disk: one folder each, named by a fingerprint of everything that went in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.folders import sha256_of

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
    """Write an entry in one move: a reader sees all of it or nothing. Who may read it, the umask says.

    Raises:
        OSError: The cache cannot be written, or its disk is full.
    """
    from safetensors.torch import save

    # As bytes: where the disk is full, writing them raises an OSError, and safetensors one of its own.
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    stamp = {"method_version": METHOD_VERSION, **identity, "sha256": digest}
    stamped = json.dumps(stamp, indent=2, sort_keys=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder)
    try:
        temporary.mkdir()
        _write(temporary / _TENSORS, content)
        _write(temporary / _IDENTITY, stamped.encode())
        if load_entry(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)  # absent, or damaged
            temporary.replace(folder)
    except OSError:
        # Another process may have written the same entry in the meantime; that one is as good.
        if load_entry(folder) is None:
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _beside(path: Path) -> Path:
    """A hidden name that no other process has, in whatever container, and no other thread."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


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
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(file)
        _write(temporary, made.encode())
        temporary.replace(file)
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
