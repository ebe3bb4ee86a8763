"""Toy packs are trained once for all processes of a test run, and kept for the next one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

import onceedit_vllm

PACKAGE = Path(onceedit_vllm.__file__).parent


def kept_pack(
    config: pytest.Config, name: str, maker: Path, out: Path, train: Callable[[Path], object]
) -> Path:
    """A copy of a pack in `out`, trained where it is not kept yet.

    Args:
        config: Of pytest; it knows where to keep things (`pytest --cache-clear` forgets them).
        name: Of the pack.
        maker: The file that says how it is trained: when it or the package changes, it is trained anew.
        out: The folder to make.
        train: Trains into the folder that it is given.
    """
    assert config.cache is not None, "run pytest with its cache"
    folder = config.cache.mkdir("packs") / name
    folder.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        kept = folder / _digest_of(maker)
        if not kept.exists():
            for stale in folder.iterdir():
                shutil.rmtree(stale)
            train(folder / "unfinished")
            (folder / "unfinished").rename(kept)
    return Path(shutil.copytree(kept, out))


def _digest_of(maker: Path) -> str:
    digest = hashlib.sha256(maker.read_bytes())
    for file in sorted(file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".json", ".jsonl")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
