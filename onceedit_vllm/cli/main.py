"""The ``onceedit`` command."""

from __future__ import annotations

import os
from typing import Annotated

import typer

import onceedit_vllm
from onceedit_vllm.cli import (
    align,
    calibrate,
    doctor,
    edit,
    eval,
    generate,
    host,
    inspect,
    models,
    pack,
    records,
    serve,
    wordings,
)
from onceedit_vllm.cli.quiet import DEBUG_VARIABLE, VERBOSE_VARIABLE

app = typer.Typer(
    name="onceedit",
    help="Edit facts once in a small plug-in model; every LLM that vLLM serves then answers with them.",
    epilog="Wherever a model is expected: a known name (see `onceedit models list`), a folder, or a hub id "
    "owner/name. Exit codes: 0 done, 1 the job failed, 2 bad arguments, 130 stopped with Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models.app, name="models")
app.add_typer(host.app, name="host")
app.add_typer(pack.app, name="pack")
app.command("edit")(edit.command)
app.command("wordings")(wordings.command)
app.command("calibrate")(calibrate.command)
app.command("align")(align.command)
app.command("generate")(generate.command)
app.command("eval")(eval.command)
app.command("records")(records.command)
app.command("serve", context_settings=serve.PASS_ON, epilog=serve.EPILOG)(serve.command)
app.command("inspect")(inspect.command)
app.command("doctor")(doctor.command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onceedit-vllm {onceedit_vllm.__version__}")
        raise typer.Exit


@app.callback()
def _set_up(
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help=f"Show what the libraries print, instead of keeping it in a log (or {VERBOSE_VARIABLE}=1).",
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help=f"As --verbose, and show tracebacks (or {DEBUG_VARIABLE}=1)."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    for wanted, variable in ((verbose, VERBOSE_VARIABLE), (debug, DEBUG_VARIABLE)):
        if wanted:
            os.environ[variable] = "1"
    # The processes that vLLM starts would warn about it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
