"""``onceedit wordings``: an LLM writes other wordings of edits, to be trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import facts_table, give_tables, reserved_stdout, say
from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord
    from onceedit_vllm.wordings.questions import Ask
    from onceedit_vllm.wordings.wordings import Wordings

Key = Annotated[
    str | None, typer.Option("--api-key", envvar="VLLM_API_KEY", help="The server's, where it wants one.")
]
Model = Annotated[str | None, typer.Option(help="The model's name on the server; default: its first.")]


class Writer(NamedTuple):
    """An LLM that writes.

    Attributes:
        name: What it is called in the file.
        ask: Asks it.
    """

    name: str
    ask: Ask


@guarded
def command(
    edits: Annotated[Path, typer.Argument(help="The facts, as `onceedit edit` takes them.")],
    llm: Annotated[
        str, typer.Option(metavar="NAME|URL", help="Who writes: a name, a folder or a hub id, or a server.")
    ],
    out: Annotated[Path, typer.Option(help="JSONL, one edit a line; a stopped run goes on.")],
    model: Model = None,
    api_key: Key = None,
) -> None:
    """Have an LLM write other wordings of edits, questions beside them, and aliases, to be trained on."""
    from onceedit_vllm.editing.records import load_edits

    records = load_edits(edits)
    with reserved_stdout() as answer:
        found = write_with(records, llm, out, model=model, api_key=api_key)
        say(f"Wrote {out}")
        give_tables(answer, facts_table("Wordings", _facts(found)))


def write_with(
    records: Sequence[EditRecord],
    llm: str,
    out: Path,
    *,
    model: str | None = None,
    api_key: str | None = None,
) -> tuple[Wordings, ...]:
    """Open the LLM, have the wordings written, and close it; where all are there, it is not asked for."""
    from onceedit_vllm.wordings.file import load_wordings
    from onceedit_vllm.wordings.write import find_unwritten, write_wordings

    if out.is_dir():
        raise BadInputError(f"{out}: is a folder; name a file for the wordings.")
    if not find_unwritten(records, out):
        return load_wordings(out, records)
    with open_writer(llm, model, api_key) as writer:
        return write_wordings(records, out, writer.ask, model=writer.name, progress=True)


@contextmanager
def open_writer(llm: str, model: str | None, api_key: str | None) -> Iterator[Writer]:
    """A server's model by its address, or a model in an engine of vLLM that is closed at the end."""
    from onceedit_vllm.wordings.server import ServerWriter, is_url

    if is_url(llm):
        server = ServerWriter(llm, model, api_key)
        yield Writer(server.name, server.ask)
        return
    from onceedit_vllm.models import resolve_model

    folder = resolve_model(llm)
    from onceedit_vllm.runner.chatting import ChatEngine

    with ChatEngine(folder) as engine:
        yield Writer(Path(llm).name, engine.ask)


def wordings_for_edit(
    edits: Path, out: Path, file: Path | None, llm: str | None, kept: Path | None, *, overwrite: bool
) -> Path | None:
    """The file of wordings that `onceedit edit` trains on: the user's, or one that an LLM writes first."""
    if llm is None:
        if kept is not None:
            raise BadInputError("--wordings-out: says where the texts of --wordings-llm go; give that too.")
        return file
    if file is not None:
        raise BadInputError("--wordings and --wordings-llm: give one of the two.")
    from onceedit_vllm.editing.records import load_edits
    from onceedit_vllm.pack import check_out

    check_out(out.expanduser(), overwrite=overwrite)  # before the LLM works for nothing
    target = kept or out.with_name(f"{out.name}.wordings.jsonl")
    write_with(load_edits(edits), llm, target)
    say(f"The wordings are in {target}: read and mend them, and give them to --wordings another time.")
    return target


def _facts(found: Sequence[Wordings]) -> dict[str, str]:
    from onceedit_vllm.wordings.write import yield_of

    counts = {name: str(count) for name, count in yield_of(found).items()}
    return {"edits": str(len(found))} | counts
