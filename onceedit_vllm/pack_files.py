"""What may lie in a pack's folder: the files its manifest lists, as they were, and nothing that names code.

A pack may come from anywhere, and transformers takes what it finds: adapters that name another model,
pickled weights, Python files. So whatever is not listed is refused, and what is listed must be data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from onceedit_vllm.errors import PackError
from onceedit_vllm.folders import sha256_of

#: Endings of weights, configurations, tokenizers and chat templates. None of them holds code or pickles.
_DATA = frozenset(
    {
        ".json",
        ".jsonl",
        ".safetensors",
        ".txt",
        ".model",
        ".jinja",
        ".tiktoken",
        ".vocab",
        ".bpe",
        ".codes",
        ".spm",
    }
)
#: transformers follows it to another model.
_ADAPTER = "adapter_config.json"
_SHARDS = ".safetensors.index.json"
_CONFIG = "config.json"
#: The key under which transformers looks for Python code of a model's own.
_CODE = "auto_map"


def check_files(
    root: Path, sizes: Mapping[str, int], files: Mapping[str, str], *, listed_in: str, verify: bool
) -> None:
    """Compare a pack's folder with its manifest.

    Args:
        root: The folder.
        sizes: Bytes of every file, by its path in the folder.
        files: sha256 of every file, by its path in the folder.
        listed_in: The manifest's own name, which it does not list.
        verify: Compare the sha256 too.

    Raises:
        PackError: A file is missing, differs, is not listed, is a link, or names code to run.
    """
    for path in _everything_in(root):
        _check_place(path, path.relative_to(root).as_posix(), {listed_in, *files})
    for name, digest in files.items():
        _check_name(root, listed_in, name)
        _check_content(root / name, sizes.get(name), digest if verify else None)
        if name.endswith(_CONFIG):
            _refuse_code(root / name)
        elif name.endswith(_SHARDS):
            _check_shards(root, name, files)


def forget_code(folder: Path) -> None:
    """Take the names of Python code out of a model's configurations.

    Models of the hub keep them although transformers has a class for the model, which is then the one used.
    """
    for file in folder.glob(f"*{_CONFIG}"):
        value = _read_json(file)
        named = [part for part in _objects(value) if part.pop(_CODE, None) is not None]
        if named:
            file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _everything_in(root: Path) -> Iterator[Path]:
    """All that is not a plain folder; links are not followed."""
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        yield from (Path(folder) / name for name in sorted([*names, *links]))


def _check_name(root: Path, listed_in: str, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise PackError(f"{root / listed_in}: {name!r} points outside the pack; do not use this pack")
    if path.suffix not in _DATA or path.name == _ADAPTER:
        raise PackError(
            f"{root / name}: a pack holds no such file, because loading it could run code or load another "
            "model; do not use this pack"
        )


def _check_place(path: Path, name: str, listed: set[str]) -> None:
    if path.is_symlink():
        raise PackError(f"{path}: is a link, and what it leads to can change; copy the pack with `cp -rL`")
    if name not in listed:
        raise PackError(f"{path}: the pack's manifest does not list it; remove it, or make the pack again")


def _check_content(file: Path, size: int | None, digest: str | None) -> None:
    if not file.is_file():
        raise PackError(f"{file}: missing; the pack is incomplete, copy or make it again")
    found = file.stat().st_size
    if size is not None and found != size:
        raise PackError(
            f"{file}: {found} bytes instead of {size}; the file is truncated or was changed, copy or make "
            "the pack again"
        )
    if digest is not None and sha256_of(file) != digest:
        raise PackError(f"{file}: sha256 differs from the manifest's; it was changed, make it again")


def _refuse_code(file: Path) -> None:
    """Refuse a configuration that names Python code, or a kernel to fetch."""
    for part in _objects(_read_json(file)):
        for key, value in part.items():
            if key == _CODE or (key.endswith("_implementation") and "/" in str(value)):
                raise PackError(f"{file}: {key} names code to run ({value!r}); do not use this pack")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects of a JSON value, at any depth."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _check_shards(root: Path, name: str, files: Mapping[str, str]) -> None:
    index = _read_json(root / name)
    weights = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weights, dict):
        raise PackError(f"{root / name}: has no weight_map; the pack is damaged, make it again")
    folder = PurePosixPath(name).parent
    for shard in map(str, weights.values()):
        if (folder / shard).as_posix() not in files:
            raise PackError(f"{root / name}: weights in {shard!r}, which is not in the pack; make it again")


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PackError(f"{file}: not JSON ({error}); the pack is damaged, make it again") from error
