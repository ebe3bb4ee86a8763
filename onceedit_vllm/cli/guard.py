"""The one place where an exception becomes a message and an exit code."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from onceedit_vllm.cli.output import say
from onceedit_vllm.errors import BadInputError, OnceEditError

P = ParamSpec("P")

DEBUG_VARIABLE = "ONCEEDIT_DEBUG"
FAILED, BAD_ARGUMENTS, INTERRUPTED = 1, 2, 130


def debugging() -> bool:
    """Whether the user wants tracebacks and the libraries' own words."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: bad input exits with 2, a failed job with 1, Ctrl-C with 130."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            say("Stopped. Nothing half-written was left behind.", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if debugging():
                say(traceback.format_exc().rstrip())
            say(f"Error: {describe(error)}", style="red")
            raise typer.Exit(BAD_ARGUMENTS if isinstance(error, BadInputError) else FAILED) from None

    return run


def describe(error: Exception) -> str:
    """Our own errors say what to do; for any other, say how to learn more."""
    if isinstance(error, OnceEditError):
        return str(error)
    words = str(error).strip() or "no details"
    return (
        f"{type(error).__name__}: {words}\nThis was not expected. Run the command again as "
        "`onceedit --debug ...` for the traceback, and `onceedit doctor` to check the installation."
    )
