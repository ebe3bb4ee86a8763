"""Unrelated knowledge: prompts that no edit may touch (the reference group of Eq. 6)."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from onceedit_vllm.editing.raw_records import Problem, RawRecord, bad_edits, read_raw_records
from onceedit_vllm.errors import BadInputError


class Unrelated(NamedTuple):
    """A prompt, with the LLM's expected answer where it is known."""

    prompt: str
    target: str | None = None


def default_unrelated() -> list[Unrelated]:
    """The project's own set: facts, chat, code, arithmetic, several languages, short and long."""
    with resources.as_file(resources.files("onceedit_vllm.editing").joinpath("unrelated.jsonl")) as path:
        return load_unrelated(path)


def load_unrelated(path: str | Path) -> list[Unrelated]:
    """Read prompts: `.txt` (one a line), JSONL with `prompt` [and `target`], or EasyEdit JSON.

    Raises:
        BadInputError: The file cannot be read or used; every problem is listed.
    """
    source = Path(path)
    if source.suffix == ".txt":
        found, problems = _read_text(source)
    else:
        raws, problems = read_raw_records(source)
        found = []
        for raw in raws:
            item = _parse(raw)
            if isinstance(item, Problem):
                problems.append(item)
            else:
                found.append(item)
    if not found and not problems:
        problems.append(Problem("line 1", "the file is empty; write one prompt a line"))
    if problems:
        raise bad_edits(str(source), problems)
    return found


def _read_text(source: Path) -> tuple[list[Unrelated], list[Problem]]:
    try:
        lines = source.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise BadInputError(f"{source}: cannot be read ({error.strerror}); give a file of prompts") from error
    found: list[Unrelated] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, start=1):
        try:
            prompt = line.decode("utf-8").strip()
        except UnicodeDecodeError:
            problems.append(Problem(f"line {number}", "not UTF-8; save the file as UTF-8"))
            continue
        if prompt:
            found.append(Unrelated(prompt))
    return found, problems


def _parse(raw: RawRecord) -> Unrelated | Problem:
    value: Any = raw.value
    if not isinstance(value, dict):
        return Problem(raw.where, "expected an object with a prompt")
    prompt = value.get("prompt", value.get("src"))
    if not isinstance(prompt, str) or not prompt.strip():
        return Problem(raw.where, "prompt is missing, blank or not a string")
    target = value.get("target", value.get("ground_truth"))
    return Unrelated(prompt, target if isinstance(target, str) and target.strip() else None)
