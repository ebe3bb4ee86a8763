"""Folders and files that come into being whole: staged beside their place, synced, and moved there.

Whoever is killed on the way leaves a hidden folder ``.NAME.xxxxxxxx.tmp`` beside the place, never half of
the thing itself. The next writer removes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: In a scratch folder: the new folder or file, and the folder that steps aside for it.
_MADE, _OLD, _GONE = ".made", ".old", ".gone"


def sha256_of(file: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stamp_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and sha256 of all files, by their path in the folder: the manifest's two tables."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        "sizes": {name: path.stat().st_size for name, path in names.items()},
        "files": {name: sha256_of(path) for name, path in names.items()},
    }


@contextmanager
def written_folder(target: Path, *, replace: bool) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` at the end; after an error `target` is as it was.

    The process's umask alone decides who may read what is in it. Where several processes write one
    target, each succeeds and the last one's folder stays.

    Args:
        target: The folder to be, or a link to it. Its parent is made when missing.
        replace: Take the place of a folder that is there. An empty one is always replaced.

    Raises:
        FileExistsError: `target` is taken and may not be replaced.
        OSError: It cannot be written.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target) as scratch:
        made = scratch / _MADE
        made.mkdir()
        mode = stat.S_IMODE(made.stat().st_mode)
        yield made
        _settle(made, mode)
        _move_into_place(made, target, replace=replace)
        _sync(target.parent)


def write_file(path: Path, text: str) -> None:
    """Write a text file whole or not at all, in UTF-8; a device or a pipe is written to as it is.

    The folder it goes to is made when missing.

    Raises:
        OSError: It cannot be written; what was there is as it was.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(path) as scratch:
        made = scratch / _MADE
        made.write_text(text, encoding="utf-8")
        _sync(made)
        made.replace(path)
        _sync(path.parent)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, on the same disk; removed at the end, whatever is in it then.

    What killed processes left of theirs is removed first.
    """
    sweep_leftovers(target)
    scratch, lock = _make_scratch(target)
    try:
        yield scratch
    finally:
        _clear(scratch, target, lock)


def sweep_leftovers(target: Path) -> None:
    """Undo what killed writers of `target` left beside it.

    Their scratch folders go. A folder that one of them had moved aside comes back, unless another took
    its place.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.tmp")
    if not target.parent.is_dir():
        return
    for path in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]:
        # Locked by the living; gone, or another user's: not ours to remove.
        with suppress(OSError):
            _clear(path, target, _lock(path))


def _make_scratch(target: Path) -> tuple[Path, int]:
    """A scratch folder, and the descriptor that holds its lock, which the system frees on death."""
    while True:
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        scratch.mkdir()
        try:
            lock = _lock(scratch)
        except (BlockingIOError, FileNotFoundError):
            continue  # swept before it was locked
        except OSError:
            # A file system without such locks: nobody sweeps there.
            return scratch, os.open(scratch, os.O_RDONLY)
        if scratch.exists():
            return scratch, lock
        os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a folder at once or raise OSError; the descriptor returned holds the lock."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _clear(scratch: Path, target: Path, lock: int) -> None:
    """Remove a scratch folder; the folder that stepped aside goes back where nothing took its place."""
    old = scratch / _OLD
    try:
        if old.exists() and not target.exists():
            _rename(old, target)
        _discard(old)
        shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os.close(lock)


def _discard(old: Path) -> None:
    """Remove a folder that stepped aside; under another name, so that half of it never comes back."""
    gone = old.with_name(_GONE)
    with suppress(FileNotFoundError):
        old.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _move_into_place(made: Path, target: Path, *, replace: bool) -> None:
    """Rename; what is there steps aside first, because a full folder cannot be replaced in one call."""
    old = made.with_name(_OLD)
    while not _rename(made, target):
        if not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        # Once more where another process has put its own there in between, or taken it away.
        _discard(old)
        with suppress(FileNotFoundError):
            target.rename(old)
    _discard(old)


def _rename(folder: Path, target: Path) -> bool:
    """Move a folder to a free place or over an empty folder; False where the place is taken."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _settle(folder: Path, mode: int) -> None:
    """Give everything the permissions of a new folder, and wait until it is on the disk.

    Some libraries write files that nobody else may read (safetensors 0.8), whatever the umask.
    """
    for path in (*folder.rglob("*"), folder):
        if path.is_symlink():
            continue
        path.chmod(mode if path.is_dir() else mode & 0o666)
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
