"""A name, a folder or a hub id in; a folder with config.json, weights and tokenizer out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.folders import scratch_folder, written_folder
from onceedit_vllm.models.convert import convert
from onceedit_vllm.models.hub import fetch_from_hub
from onceedit_vllm.models.recipes import RECIPES, Recipe
from onceedit_vllm.models.store import is_whole, locked, models_dir, open_store, seal
from onceedit_vllm.models.wheels import take_gguf

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def known_models() -> tuple[str, ...]:
    """The names that :func:`resolve_model` knows."""
    return tuple(RECIPES)


def resolve_model(model: str | Path, *, progress: bool = True) -> Path:
    """Find a model, making or fetching it on first use.

    Args:
        model: A known name (:func:`known_models`), else a folder, else a hub id ``owner/name``. A
            folder that is called like a known name is written ``./name``.
        progress: Show bars on standard error.

    Returns:
        A folder that transformers and vLLM load.

    Raises:
        BadInputError: `model` is none of the three, or the folder is no model.
        ModelError: The model could not be fetched or converted.
    """
    text = str(model).strip()
    if text in RECIPES:
        return _cached_or_made(RECIPES[text], progress=progress)
    folder = Path(text).expanduser()
    if text and folder.is_dir():
        return _checked_folder(folder)
    if _HUB_ID.fullmatch(text):
        return _checked_folder(fetch_from_hub(text, progress=progress))
    if folder.is_file():
        raise BadInputError(f"{text}: is a file; a model is the folder that holds its config.json.")
    if text.startswith(("/", ".", "~")) or text.count("/") > 1:
        raise BadInputError(f"{text}: no such folder. {_what_works()}")
    raise BadInputError(f"{text!r}: unknown model name. {_what_works()}")


def cached_model(name: str) -> Path | None:
    """The folder of a known name if it is in the cache and whole; nothing is fetched."""
    recipe = _recipe(name)
    folder = models_dir() / recipe.name
    return folder if is_whole(folder, recipe) else None


def fetch_model(name: str, out: str | Path | None = None, *, progress: bool = True) -> Path:
    """Make sure that a named model is in the cache, and copy it to `out` if given.

    Raises:
        BadInputError: The name is unknown, or `out` exists and is not an empty folder.
        ModelError: The model could not be fetched, converted or copied.
    """
    recipe = _recipe(name)
    if out is None:
        return _cached_or_made(recipe, progress=progress)
    target = Path(out).expanduser()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BadInputError(f"{target}: already exists; name a folder that does not, or an empty one.")
    source = _cached_or_made(recipe, progress=progress)
    try:
        with written_folder(target, replace=False) as copy:
            shutil.copytree(source, copy, dirs_exist_ok=True)
    except OSError as error:
        raise ModelError(
            f"{target}: the model could not be copied there ({error}). Take a folder that you can write, "
            "with 2 GB free."
        ) from error
    return target


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise BadInputError(f"{name!r}: unknown model name. Known names: {', '.join(RECIPES)}.")
    return RECIPES[name]


def _cached_or_made(recipe: Recipe, *, progress: bool) -> Path:
    """The cached folder of `recipe`; built first when absent, damaged or of an older recipe."""
    folder = models_dir() / recipe.name
    if is_whole(folder, recipe):
        return folder
    store = open_store()
    waiting = f"Another process is preparing {recipe.name}; waiting for it."
    with locked(store / f".{recipe.name}.lock", waiting=waiting):
        if is_whole(folder, recipe):
            return folder
        _make(recipe, folder, progress=progress)
    return folder


def _make(recipe: Recipe, folder: Path, *, progress: bool) -> None:
    """Fetch, convert, check and seal beside `folder`, then move there."""
    try:
        with scratch_folder(folder) as work, written_folder(folder, replace=True) as made:
            gguf = take_gguf(recipe, work, progress=progress)
            convert(recipe, gguf, made, progress=progress)
            shutil.copytree(work / "notices", made, dirs_exist_ok=True)
            seal(made, recipe)
    except OSError as error:
        raise ModelError(
            f"{recipe.name}: could not be written below {folder.parent} ({error}). Free 2 GB there, or set "
            "ONCEEDIT_CACHE to another folder."
        ) from error


def _checked_folder(folder: Path) -> Path:
    """`folder`, once it is seen to hold the three things a model needs."""
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        missing.append("weights (*.safetensors)")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        missing.append("tokenizer (tokenizer.json)")
    if missing:
        raise BadInputError(
            f"{folder}: not a model folder, it has no {', no '.join(missing)}. "
            "Pass the folder that save_pretrained() wrote, of both the model and its tokenizer."
        )
    return folder


def _what_works() -> str:
    return (
        f"Known names: {', '.join(RECIPES)}. A folder with config.json, safetensors and tokenizer works "
        "too, and so does a hub id written owner/name."
    )
