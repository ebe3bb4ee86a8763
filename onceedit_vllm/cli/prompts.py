"""Prompts from the command line or a file, checked before any engine starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from onceedit_vllm.errors import BadInputError

_FORMATS = (
    'A .jsonl file has {"prompt": "..."} a line, a .json file a list of strings, any other a prompt a line.'
)


def collect_prompts(given: Sequence[str], file: Path | None) -> list[str]:
    """The prompts of ``--prompt`` or of ``--prompts FILE``.

    Raises:
        BadInputError: Neither or both are given, or a prompt cannot be used; all of them are listed.
    """
    if bool(given) == (file is not None):
        raise BadInputError("Give prompts either with --prompt TEXT (it may be repeated) or --prompts FILE.")
    placed = list(_read(file)) if file is not None else [("--prompt", text) for text in given]
    if not placed:
        raise BadInputError(f"--prompts {file}: there is no prompt in it. {_FORMATS}")
    problems = [f"{where}: {problem}" for where, value in placed if (problem := _problem(value))]
    if problems:
        shown = problems[:20] + ([f"and {len(problems) - 20} more"] if len(problems) > 20 else [])
        source = f"--prompts {file}:\n  " if file is not None else ""
        raise BadInputError(source + "\n  ".join(shown))
    return [value for _, value in placed]


def _problem(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"a prompt must be text, not {type(value).__name__}"
    if not value.strip():
        return "the prompt is blank; write one, or remove the line"
    return None


def _read(file: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of every entry of a prompts file."""
    text = _read_text(file)
    if file.suffix == ".json":
        yield from _read_json(text, file)
        return
    lines = text.rstrip().split("\n") if text.strip() else []
    for number, line in enumerate(lines, start=1):
        where = f"line {number}"
        yield where, _parse_line(line, where, file) if file.suffix == ".jsonl" else line.removesuffix("\r")


def _read_text(file: Path) -> str:
    if not file.is_file():
        raise BadInputError(f"--prompts {file}: no such file.")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(
            f"--prompts {file}: not UTF-8 (byte {error.start}). Save the file as UTF-8."
        ) from error
    except OSError as error:
        raise BadInputError(f"--prompts {file}: cannot be read ({error.strerror}).") from error


def _read_json(text: str, file: Path) -> Iterator[tuple[str, Any]]:
    if not text.strip():
        return
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInputError(f"--prompts {file}: not JSON ({error}). {_FORMATS}") from error
    if not isinstance(values, list):
        raise BadInputError(f"--prompts {file}: not a list. {_FORMATS}")
    for position, value in enumerate(values, start=1):
        yield f"entry {position}", value


def _parse_line(line: str, where: str, file: Path) -> Any:
    if not line.strip():
        return ""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInputError(f"--prompts {file}: {where}: not JSON ({error.msg}). {_FORMATS}") from error
    if not isinstance(value, dict) or "prompt" not in value:
        raise BadInputError(f'--prompts {file}: {where}: no "prompt" in it. {_FORMATS}')
    return value["prompt"]
