"""Folders written in one move: stamped, synced, and put in place whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256_of(file: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def staging_folder(root: Path) -> Iterator[Path]:
    """An empty folder beside ``root``; whatever is left of it at the end is removed."""
    folder = root.parent / f".{root.name}.{os.getpid()}.tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stamp_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and sha256 of all files, by their path in the folder: the manifest's two tables."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        "sizes": {name: path.stat().st_size for name, path in names.items()},
        "files": {name: sha256_of(path) for name, path in names.items()},
    }


def sync_tree(folder: Path) -> None:
    """Wait until everything in the folder is on the disk."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def move_into_place(folder: Path, root: Path) -> None:
    """Rename; an old pack steps aside first, because a folder cannot be replaced in one call."""
    old = root.parent / f".{root.name}.{os.getpid()}.old"
    if root.exists():
        root.rename(old)
    try:
        folder.rename(root)
    except OSError:
        if old.exists():
            old.rename(root)
        raise
    shutil.rmtree(old, ignore_errors=True)
