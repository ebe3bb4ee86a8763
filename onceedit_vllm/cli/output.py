"""Standard output carries the answer and nothing else; everything else goes to standard error."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.folders import write_file
from onceedit_vllm.terminal import error_console, kept_terminal

#: ``--json -`` means standard output.
STANDARD_OUTPUT = "-"


def say(text: str, *, style: str = "") -> None:
    """A line for people, on standard error, as it is (no markup, no wrapping)."""
    error_console(soft_wrap=True).print(text, style=style, markup=False, highlight=False)


def check_json_target(target: str | None) -> None:
    """Refuse a ``--json`` file that could not be written, before the work starts.

    Raises:
        BadInputError: Its folder does not exist or it is a folder.
    """
    if target is None or target == STANDARD_OUTPUT:
        return
    path = Path(target).expanduser()
    if path.is_dir():
        raise BadInputError(f"--json {target}: is a folder; name a file, or - for standard output.")
    if not path.absolute().parent.is_dir():
        raise BadInputError(f"--json {target}: there is no folder {path.absolute().parent}; create it first.")


@contextlib.contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Give the real standard output to the caller; what others print goes to the log or to standard error."""
    with kept_terminal() as answer:
        yield answer
        answer.flush()


def give_json(value: Any, target: str, answer: TextIO) -> None:
    """Write `value` to the file `target` (whole or not at all), or to `answer` for ``-``."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if target == STANDARD_OUTPUT:
        answer.write(text)
        return
    path = Path(target).expanduser()
    write_file(path, text)
    say(f"Wrote {path}")


def give_tables(answer: TextIO, *tables: Table) -> None:
    """Tables for people, on the real standard output."""
    console = Console(file=answer)
    for table in tables:
        console.print(table)


def facts_table(title: str, facts: dict[str, str]) -> Table:
    """A two-column table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, plain(value))
    return table


def columns_table(*columns: str) -> Table:
    """A table whose cells fold where they are too long; nothing is cut off."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def plain(text: str, limit: int | None = None) -> str:
    """One line of text for a table cell, with rich's markup switched off."""
    line = " ".join(text.split())
    if limit is not None and len(line) > limit:
        line = line[: limit - 3] + "..."
    return line.replace("[", r"\[")


def size_text(num_bytes: int) -> str:
    """Bytes for people: 12.3 MB."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
