"""Edits, and the files they come from: JSONL and EasyEdit's ZsRE and CounterFact JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.edits import EditRecord, normalise
from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: How many problems a message prints before it only counts the rest.
MAX_PROBLEMS_SHOWN = 50

#: Fields of an edit that hold several texts.
_LISTS = ("rephrases", "locality", "aliases")


class Problem(NamedTuple):
    """One thing that is wrong, and where: `line 3`, `record 12`."""

    where: str
    what: str


class RawRecord(NamedTuple):
    """A JSON value read from a file, with its place there."""

    where: str
    position: int
    value: Any


def load_edits(path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> list[EditRecord]:
    """Read and check a file of edits; the format is recognised from its content.

    Args:
        path: JSONL (one edit a line) or a JSON array in EasyEdit's ZsRE or CounterFact format.
        tokenizer: The plug-in's tokenizer; when given, every target must be encodable by it.

    Raises:
        BadInputError: The file cannot be read, or anything in it is wrong; every problem is listed.
    """
    source = Path(path)
    raws, problems = read_raw_records(source)
    placed: list[tuple[str, EditRecord]] = []
    for raw in raws:
        found = _parse_record(raw)
        if isinstance(found, EditRecord):
            placed.append((raw.where, found))
        else:
            problems.extend(found)
    problems.extend(find_problems(placed, tokenizer))
    if not placed and not problems:
        problems.append(Problem("line 1", "the file is empty; write one edit a line, with prompt and target"))
    if problems:
        raise bad_edits(str(source), problems)
    return [record for _, record in placed]


def check_edits(records: Sequence[EditRecord], tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Apply the checks of :func:`load_edits` to edits made in Python.

    Raises:
        BadInputError: Any of them is wrong; every problem is listed.
    """
    placed = [(f"record {number}", record) for number, record in enumerate(records, start=1)]
    problems = find_problems(placed, tokenizer)
    if not placed:
        problems = [Problem("edits", "there are none; give at least one EditRecord")]
    if problems:
        raise bad_edits("the edits given", problems)


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


# --- reading ---------------------------------------------------------------------------------


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


# --- one record ------------------------------------------------------------------------------


def _parse_record(raw: RawRecord) -> EditRecord | list[Problem]:
    if not isinstance(raw.value, dict):
        return [Problem(raw.where, f"expected an object with prompt and target, found {_kind(raw.value)}")]
    fields = _to_fields(raw)
    problems = [Problem(raw.where, what) for what in _blank_fields(fields)]
    try:
        record = EditRecord.model_validate(fields)
    except ValidationError as error:
        return problems + [Problem(raw.where, _explain(detail)) for detail in error.errors()]
    return problems or record


def _to_fields(raw: RawRecord) -> dict[str, Any]:
    value: dict[str, Any] = raw.value
    if "src" in value:  # EasyEdit, ZsRE
        fields = {"prompt": value["src"], "target": value.get("alt"), "subject": value.get("subject")}
        lists = {"rephrases": value.get("rephrase"), "locality": value.get("loc")}
    elif "target_new" in value:  # EasyEdit, CounterFact
        fields = {key: value.get(key) for key in ("prompt", "subject")} | {"target": value["target_new"]}
        lists = {"rephrases": value.get("rephrase_prompt"), "locality": value.get("locality_prompt")}
    else:
        fields = {key: item for key, item in value.items() if key not in _LISTS}
        lists = {key: value[key] for key in _LISTS if key in value}
    fields |= {key: _to_tuple(item) for key, item in lists.items() if item is not None}
    fields = {key: item for key, item in fields.items() if item is not None}
    number = value.get("id", value.get("case_id"))
    if isinstance(number, int) and not isinstance(number, bool):
        number = str(number)
    fields["id"] = number if number is not None else f"{raw.where.split()[0]}-{raw.position}"
    return fields


def _to_tuple(item: Any) -> Any:
    if isinstance(item, str):
        return (item,)
    return tuple(item) if isinstance(item, list) else item


def _blank_fields(fields: dict[str, Any]) -> Iterator[str]:
    for key, value in fields.items():
        texts = [text for text in (value if isinstance(value, tuple) else (value,)) if isinstance(text, str)]
        if any(re.search("[\ud800-\udfff]", text) for text in texts):
            yield f"{key} holds half of a character (a lone surrogate) and cannot be encoded"
        if all(text.strip() for text in texts):
            continue
        if isinstance(value, tuple):
            yield f"{key} holds a blank text; remove it"
        else:
            optional = key in ("id", "subject")
            yield f"{key} is blank; {'leave it out or fill it in' if optional else 'fill it in'}"


def _explain(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{field} is missing"
    if detail["type"] == "extra_forbidden":
        return f"unknown field {field!r}; known are {', '.join(EditRecord.model_fields)}"
    wanted = "a list of strings" if field in _LISTS else "a string"
    return f"{field} must be {wanted}, found {_kind(detail['input'])}"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", tuple: "a list", str: "a string", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")


# --- the records together --------------------------------------------------------------------


def find_problems(
    placed: Sequence[tuple[str, EditRecord]], tokenizer: PreTrainedTokenizerBase | None
) -> list[Problem]:
    """Problems that only show among several edits, or with the plug-in's tokenizer."""
    problems: list[Problem] = []
    first_id: dict[str, str] = {}
    first_prompt: dict[str, tuple[str, str]] = {}
    for where, record in placed:
        if record.id in first_id:
            problems.append(Problem(where, f"id {record.id!r} is already used at {first_id[record.id]}"))
        first_id.setdefault(record.id, where)
        seen, target = first_prompt.setdefault(normalise(record.prompt), (where, record.target))
        if normalise(target) != normalise(record.target):
            both = f"{target!r} at {seen}, {record.target!r} here"
            problems.append(Problem(where, f"the same prompt has two targets: {both}"))
        if tokenizer is not None and (reason := _unencodable(record.target, tokenizer)):
            problems.append(Problem(where, f"target {record.target!r} cannot be encoded: {reason}"))
        problems.extend(Problem(where, what) for what in _reserved(record))
    return problems


def _reserved(record: EditRecord) -> Iterator[str]:
    for key in ("prompt", "target"):
        if WEIGHT_TOKEN in getattr(record, key):
            yield f"{key} contains {WEIGHT_TOKEN}, which is reserved for the gate"


def _unencodable(target: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    ids = tokenizer.encode(" " + target.strip(), add_special_tokens=False)
    if not ids:
        return "the tokenizer gives no tokens for it"
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        return "the tokenizer gives its unknown token for it"
    special = set(tokenizer.all_special_ids).intersection(ids)
    if special:
        names = ", ".join(str(tokenizer.convert_ids_to_tokens(token)) for token in sorted(special))
        return f"it contains the special token {names}"
    if not str(tokenizer.decode(ids)).strip():
        return "its tokens stand for no text"
    return None
