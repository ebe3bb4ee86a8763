"""`wordings.jsonl`: one edit a line, checked against the edits it is for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.edits import EditRecord, normalise
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.folders import write_file
from onceedit_vllm.wordings.names import leaks, names_of, says, words_of
from onceedit_vllm.wordings.wordings import Wordings

#: Problems that a message prints before it only counts the rest.
_MOST_SHOWN = 50


def read_wordings(path: str | Path) -> list[Wordings]:
    """Read a file of wordings, as far as that can be checked without its edits.

    Raises:
        BadInputError: It cannot be read, or a line of it is wrong; every problem is listed with its line.
    """
    return [line for _, line in _read(Path(path))]


def write_wordings_file(path: str | Path, wordings: Iterable[Wordings]) -> None:
    """Write a file of wordings, whole or not at all."""
    write_file(Path(path), to_jsonl(wordings))


def to_jsonl(wordings: Iterable[Wordings]) -> str:
    """One line for each edit."""
    return "".join(line.model_dump_json(exclude_defaults=True) + "\n" for line in wordings)


def load_wordings(path: str | Path, edits: Sequence[EditRecord]) -> tuple[Wordings, ...]:
    """Read the wordings of some edits; those of others in the file are left out.

    Args:
        path: The file.
        edits: What the wordings are for.

    Raises:
        BadInputError: The file cannot be read or used; every problem is listed with its line.
    """
    source = Path(path)
    lines = _read(source)
    known = {edit.id: edit for edit in edits}
    problems = [
        f"line {number}: {problem}"
        for number, line in lines
        if line.id in known
        for problem in _faults(line, known[line.id])
    ]
    _refuse(source, problems)
    found = {line.id: line for _, line in lines}
    if not found.keys() & known.keys():
        raise BadInputError(f"{source}: has wordings of none of the {len(known)} edits; give their own file")
    return tuple(found[edit.id] for edit in edits if edit.id in found)


def check_wordings(wordings: Sequence[Wordings], edits: Sequence[EditRecord]) -> tuple[Wordings, ...]:
    """The same for wordings that were made in Python.

    Raises:
        BadInputError: One of them cannot be used; every problem is listed.
    """
    known = {edit.id: edit for edit in edits}
    problems = [
        f"edit {line.id!r}: {problem}"
        for line in wordings
        if line.id in known
        for problem in _faults(line, known[line.id])
    ]
    problems += [f"edit {name!r}: has wordings twice" for name in _repeated(wordings)]
    _refuse("the wordings given", problems)
    found = {line.id: line for line in wordings}
    return tuple(found[edit.id] for edit in edits if edit.id in found)


def join_aliases(edits: Sequence[EditRecord], wordings: Iterable[Wordings]) -> list[EditRecord]:
    """The edits with the aliases that their wordings propose, so that requests are recognised by them."""
    proposed = {line.id: line.aliases for line in wordings}
    return [_with_aliases(edit, proposed.get(edit.id, ())) for edit in edits]


def _with_aliases(edit: EditRecord, aliases: Iterable[str]) -> EditRecord:
    known = {words_of(name) for name in names_of(edit)}
    new = [alias for alias in dict.fromkeys(aliases) if words_of(alias) not in known]
    return edit.model_copy(update={"aliases": (*edit.aliases, *new)}) if new else edit


def _read(source: Path) -> list[tuple[int, Wordings]]:
    try:
        data = source.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        why = f"cannot be read ({error.strerror}); give a file of wordings"
        raise BadInputError(f"{source}: {why}") from error
    lines: list[tuple[int, Wordings]] = []
    problems: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            lines.append((number, Wordings.model_validate_json(line)))
        except ValidationError as error:
            problems.append(f"line {number}: {_explain(error)}")
    repeated = _repeated([line for _, line in lines])
    twice = [(number, line.id) for number, line in lines if line.id in repeated]
    problems += [f"line {number}: id {name!r} is used twice" for number, name in twice]
    _refuse(source, problems)
    return lines


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "content"
    return f"{where}: {first['msg']}"


def _repeated(wordings: Iterable[Wordings]) -> set[str]:
    counts = Counter(line.id for line in wordings)
    return {name for name, count in counts.items() if count > 1}


def _refuse(source: str | Path, problems: Sequence[str]) -> None:
    if not problems:
        return
    more = [f"and {len(problems) - _MOST_SHOWN} more"] if len(problems) > _MOST_SHOWN else []
    listed = "\n".join(f"  {problem}" for problem in [*problems[:_MOST_SHOWN], *more])
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    raise BadInputError(f"{source}: {count}; mend these and run again:\n{listed}")


def _faults(line: Wordings, edit: EditRecord) -> Iterator[str]:
    """What is wrong with the wordings of an edit."""
    for field in ("prompt", "target"):
        given, own = getattr(line, field), getattr(edit, field)
        if given is not None and normalise(given) != normalise(own):
            yield f"written for an edit with the {field} {given!r}, but that of {edit.id!r} is {own!r}"
    if line.aliases and edit.subject is None:
        yield "aliases need a subject; the edit has none"
    names = names_of(edit, line.aliases)
    for field, text in line.texts():
        what = f"{field}: {json.dumps(text, ensure_ascii=False)}"
        if not words_of(text) or WEIGHT_TOKEN in text:
            yield f"{what} is blank or contains {WEIGHT_TOKEN}"
        elif field != "aliases" and names and not any(says(text, name) for name in names):
            yield f"{what} names neither the subject nor an alias"
        elif field == "asking" and leaks(text, edit.target, names):
            yield f"{what} says the target, which must be the answer"
    for text in {normalise(text) for text in line.asking} & {normalise(text) for text in line.others}:
        yield f"{json.dumps(text, ensure_ascii=False)} stands both in asking and in others"
