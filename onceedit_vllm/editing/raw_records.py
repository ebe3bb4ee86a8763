"""JSON values read from a user's file, each with its place there, and all that is wrong in one error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from onceedit_vllm.errors import BadInputError

#: How many problems a message prints before it only counts the rest.
MAX_PROBLEMS_SHOWN = 50


class Problem(NamedTuple):
    """One thing that is wrong, and where: `line 3`, `record 12`."""

    where: str
    what: str


class RawRecord(NamedTuple):
    """A JSON value read from a file, with its place there."""

    where: str
    position: int
    value: Any


def read_raw_records(path: Path) -> tuple[list[RawRecord], list[Problem]]:
    """Read the JSON values of a file, with whatever could not be read as problems.

    Raises:
        BadInputError: There is no such file, or it cannot be opened.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}); give a file of edits") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] == b"[":
        return _read_array(data)
    return _read_lines(data)


def _read_lines(data: bytes) -> tuple[list[RawRecord], list[Problem]]:
    raws: list[RawRecord] = []
    problems: list[Problem] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        where = f"line {number}"
        if not line.strip():
            continue
        try:
            raws.append(RawRecord(where, number, json.loads(line.decode("utf-8"))))
        except UnicodeDecodeError as error:
            problems.append(Problem(where, f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8"))
        except json.JSONDecodeError as error:
            problems.append(Problem(where, f"not JSON: {error.msg} at column {error.colno}"))
    return raws, problems


def _read_array(data: bytes) -> tuple[list[RawRecord], list[Problem]]:
    try:
        values = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [], [Problem(f"line {line}", "not UTF-8; save the file as UTF-8")]
    except json.JSONDecodeError as error:
        return [], [Problem(f"line {error.lineno}", f"not JSON: {error.msg} at column {error.colno}")]
    return [RawRecord(f"record {n}", n, value) for n, value in enumerate(values, start=1)], []


def bad_edits(source: str, problems: Iterable[Problem]) -> BadInputError:
    """Build the one error that lists all problems in the order of the file."""
    ordered = sorted(problems, key=lambda problem: _place(problem.where))
    lines = [f"  {problem.where}: {problem.what}" for problem in ordered[:MAX_PROBLEMS_SHOWN]]
    if len(ordered) > MAX_PROBLEMS_SHOWN:
        lines.append(f"  and {len(ordered) - MAX_PROBLEMS_SHOWN} more")
    count = f"{len(ordered)} problem{'s' if len(ordered) > 1 else ''}"
    listed = "\n".join(lines)
    return BadInputError(f"{source}: {count}; nothing was trained. Mend these and run again:\n{listed}")


def _place(where: str) -> int:
    digits = re.search(r"\d+", where)
    return int(digits.group()) if digits else 0
