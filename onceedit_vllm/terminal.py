"""The user's terminal: what this package says reaches it, what libraries print can be kept off it.

Libraries write to the descriptors 1 and 2, from Python, from C and from child processes. Inside
:func:`kept_terminal` these lead elsewhere, and everything of our own goes through the functions here.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn


class _Terminal(NamedTuple):
    output: TextIO
    error: TextIO


_kept: _Terminal | None = None


def standard_output() -> TextIO:
    """The real standard output, which is for answers."""
    return _kept.output if _kept else sys.stdout


def standard_error() -> TextIO:
    """The real standard error, which is for bars and messages."""
    return _kept.error if _kept else sys.stderr


def error_console(**options: Any) -> Console:
    """A rich console on the real standard error.

    Args:
        options: Further arguments of :class:`rich.console.Console`.
    """
    return Console(file=standard_error(), **options)


def progress_bar(*columns: ProgressColumn, shown: bool) -> Progress:
    """A rich progress bar on the real standard error.

    rich draws above its bar what Python prints meanwhile; kept off the terminal, that must not be.
    """
    through = _kept is None
    return Progress(
        *columns,
        console=error_console(),
        disable=not shown,
        redirect_stdout=through,
        redirect_stderr=through,
    )


@contextlib.contextmanager
def kept_terminal(log: TextIO | None = None) -> Iterator[TextIO]:
    """Keep the terminal for this package.

    Args:
        log: An open file for what others print to standard output and standard error. None sends the
            first to the second, so that standard output is left to the answer alone.

    Yields:
        The real standard output. Inside another of these contexts that one stands, and `log` is ignored.
    """
    global _kept
    if _kept is not None:
        yield _kept.output
        return
    with _turned_to(log or sys.stderr, "stdout") as output:
        turned = _turned_to(log, "stderr") if log else contextlib.nullcontext(sys.stderr)
        with turned as error:
            _kept = _Terminal(output, error)
            try:
                yield output
            finally:
                _kept = None


@contextlib.contextmanager
def _turned_to(target: TextIO, name: str) -> Iterator[TextIO]:
    """Turn ``sys.stdout`` or ``sys.stderr`` to `target`, descriptor and all; yields where it led before."""
    stream: TextIO = getattr(sys, name)
    stream.flush()
    try:
        descriptor, lead = stream.fileno(), target.fileno()
    except (OSError, ValueError):  # a stand-in without a descriptor, as in tests
        setattr(sys, name, target)
        try:
            yield stream
        finally:
            setattr(sys, name, stream)
        return
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8", buffering=1) as real:
        os.dup2(lead, descriptor)
        try:
            yield real
        finally:
            stream.flush()
            os.dup2(real.fileno(), descriptor)
