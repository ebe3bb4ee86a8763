"""What libraries and their processes print during a command goes to a log file, not to the screen."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from onceedit_vllm.config import cache_dir
from onceedit_vllm.terminal import kept_terminal

DEBUG_VARIABLE = "ONCEEDIT_DEBUG"
VERBOSE_VARIABLE = "ONCEEDIT_VERBOSE"

#: Logs that are kept, this command's own among them.
NUM_LOGS = 20


def debugging() -> bool:
    """Whether the user wants tracebacks and the libraries' own words on the screen."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def verbose() -> bool:
    """Whether the user wants the libraries' own words on the screen."""
    return debugging() or os.environ.get(VERBOSE_VARIABLE, "") not in ("", "0")


@contextmanager
def library_log(command: str) -> Iterator[Path | None]:
    """Keep what libraries and child processes print off the screen, in a log file.

    Our own bars and messages still reach the screen. Scripts that run this package as the commands do
    may use it too; what they print themselves goes to :func:`onceedit_vllm.terminal.standard_output`::

        with library_log("demo") as log:
            console = Console(file=standard_output())

    Args:
        command: The first part of the file's name, ``<cache>/logs/<command>-<time>-<pid>.log``.

    Yields:
        The file, which is removed at the end if nothing was written. None where the words stay on the
        screen: the user asked for that, or no file can be written in the cache.
    """
    log = None if verbose() else _open_log(command)
    if log is None:
        with kept_terminal():
            yield None
        return
    path = Path(log.name)
    try:
        with log, kept_terminal(log):
            yield path
    finally:
        with suppress(FileNotFoundError):  # twenty newer commands, and the log is gone while we ran
            if path.stat().st_size == 0:
                path.unlink()


def quiet_bars() -> None:
    """Switch transformers' bars off: our own say more. Imports transformers."""
    if verbose():
        return
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    enable_progress_bars()  # transformers has switched those of downloads off too


def _open_log(command: str) -> TextIO | None:
    """A new file for this command, and the oldest files gone."""
    folder = cache_dir() / "logs"
    name = f"{command}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / name).open("a", encoding="utf-8", buffering=1)
    except OSError:
        return None
    with suppress(OSError):  # another command may be removing the same files
        for old in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-NUM_LOGS]:
            old.unlink(missing_ok=True)
    return log
