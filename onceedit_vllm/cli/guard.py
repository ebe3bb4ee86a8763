"""The one place where an exception becomes a message and an exit code."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ParamSpec

import typer

from onceedit_vllm.cli.output import say
from onceedit_vllm.cli.quiet import debugging, library_log
from onceedit_vllm.errors import BadInputError, OnceEditError

P = ParamSpec("P")

FAILED, BAD_ARGUMENTS, INTERRUPTED = 1, 2, 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: bad input exits with 2, a failed job with 1, Ctrl-C with 130.

    What libraries print meanwhile goes to a log, which the message of a failure names.
    """
    name = command.__module__.rpartition(".")[2]
    return _guarded(command, lambda: library_log(name))


def guarded_on_screen(command: Callable[P, None]) -> Callable[P, None]:
    """The same for a command whose libraries speak to the user: what they print stays where it is."""
    return _guarded(command, nullcontext)


def _guarded(
    command: Callable[P, None], kept: Callable[[], AbstractContextManager[Path | None]]
) -> Callable[P, None]:
    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        log = None
        try:
            with kept() as log:
                _traced(command, *args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            say("Stopped. Nothing half-written was left behind.", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            say(f"Error: {describe(error)}", style="red")
            if log is not None and log.exists():
                say(f"What the libraries printed is in {log} (`onceedit --verbose ...` shows it instead).")
            raise typer.Exit(BAD_ARGUMENTS if isinstance(error, BadInputError) else FAILED) from None

    return run


def _traced(command: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run `command`; the traceback of what nobody expected goes where the libraries' words go."""
    try:
        command(*args, **kwargs)
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debugging() or not isinstance(error, OnceEditError):
            traceback.print_exc()
        raise


def describe(error: Exception) -> str:
    """Our own errors say what to do; for any other, say how to learn more."""
    if isinstance(error, OnceEditError):
        return str(error)
    words = str(error).strip() or "no details"
    return (
        f"{type(error).__name__}: {words}\nThis was not expected. Run the command again as "
        "`onceedit --debug ...` for the traceback, and `onceedit doctor` to check the installation."
    )
