"""The cache of converted models: one folder per name, whole or absent."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from onceedit_vllm.config import cache_dir
from onceedit_vllm.errors import ModelError
from onceedit_vllm.models.recipes import RECIPE_VERSION, Recipe
from onceedit_vllm.terminal import error_console

_MANIFEST = "onceedit_model.json"


def models_dir() -> Path:
    """Where named models are kept."""
    return cache_dir() / "models"


def seal(folder: Path, recipe: Recipe) -> None:
    """Write the manifest that :func:`is_whole` checks: the size of every file."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != _MANIFEST}
    manifest = {
        "recipe_version": RECIPE_VERSION,
        "name": recipe.name,
        "made_from": list(recipe.requirements),
        "licence": recipe.licence,
        "files": sizes,
    }
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def is_whole(folder: Path, recipe: Recipe) -> bool:
    """Whether `folder` holds every file of this version of `recipe`, at its full size."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        made = (manifest["recipe_version"], manifest["name"], tuple(manifest["made_from"]))
        sizes = manifest["files"].items()
        return made == (RECIPE_VERSION, recipe.name, recipe.requirements) and all(
            (folder / name).stat().st_size == size for name, size in sizes
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def locked(path: Path, *, waiting: str) -> Iterator[None]:
    """Hold a lock file, so that one process builds while the others wait; the OS frees it on death.

    Args:
        path: The file, which stays when it is no longer held.
        waiting: What the user is told when another process holds it.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        error_console().print(waiting)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def open_store() -> Path:
    """Create the folder of named models if needed.

    Raises:
        ModelError: It cannot be written.
    """
    folder = models_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ModelError(
            f"{folder}: cannot be written ({error.strerror}). Set ONCEEDIT_CACHE to a folder of yours with "
            "2 GB free."
        ) from error
