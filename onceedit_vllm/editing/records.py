"""Edits, and the files they come from: JSONL and EasyEdit's ZsRE and CounterFact JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.editing.raw_records import Problem, RawRecord, bad_edits, read_raw_records
from onceedit_vllm.edits import EditRecord, normalise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Fields of an edit that hold several texts.
_LISTS = ("rephrases", "locality", "aliases")


@dataclass(frozen=True)
class PlacedEdits:
    """Edits and where each was found, so that whatever is wrong with one can be said with its place.

    Attributes:
        source: The file, or `the edits given`.
        records: The edits.
        places: One for each edit: `line 3`, `record 12`.
    """

    source: str
    records: tuple[EditRecord, ...]
    places: tuple[str, ...]

    def check_targets(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that every target can be encoded by the plug-in's tokenizer.

        Raises:
            BadInputError: One cannot; all that cannot are listed.
        """
        problems = [
            Problem(where, f"target {record.target!r} cannot be encoded: {reason}")
            for where, record in zip(self.places, self.records, strict=True)
            if (reason := _unencodable(record.target, tokenizer))
        ]
        if problems:
            raise bad_edits(self.source, problems)


def place_edits(edits: str | Path | Sequence[EditRecord]) -> PlacedEdits:
    """Read a file of edits, or take edits made in Python, and check all that needs no tokenizer.

    Args:
        edits: As in :func:`load_edits`, or the edits themselves.

    Raises:
        BadInputError: The file cannot be read, or anything in it is wrong; every problem is listed.
    """
    if isinstance(edits, str | Path):
        return _read(Path(edits))
    places = tuple(f"record {number}" for number in range(1, len(edits) + 1))
    problems = list(_find_problems(zip(places, edits, strict=True)))
    if not edits:
        problems = [Problem("edits", "there are none; give at least one EditRecord")]
    if problems:
        raise bad_edits("the edits given", problems)
    return PlacedEdits("the edits given", tuple(edits), places)


def load_edits(path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> list[EditRecord]:
    """Read and check a file of edits; the format is recognised from its content.

    Args:
        path: JSONL (one edit a line) or a JSON array in EasyEdit's ZsRE or CounterFact format.
        tokenizer: The plug-in's tokenizer; when given, every target must be encodable by it.

    Raises:
        BadInputError: The file cannot be read, or anything in it is wrong; every problem is listed.
    """
    placed = place_edits(path)
    if tokenizer is not None:
        placed.check_targets(tokenizer)
    return list(placed.records)


def _read(source: Path) -> PlacedEdits:
    raws, problems = read_raw_records(source)
    placed: list[tuple[str, EditRecord]] = []
    for raw in raws:
        found = _parse_record(raw)
        if isinstance(found, EditRecord):
            placed.append((raw.where, found))
        else:
            problems.extend(found)
    problems.extend(_find_problems(placed))
    if not placed and not problems:
        problems.append(Problem("line 1", "the file is empty; write one edit a line, with prompt and target"))
    if problems:
        raise bad_edits(str(source), problems)
    return PlacedEdits(
        str(source), tuple(record for _, record in placed), tuple(where for where, _ in placed)
    )


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
    lists["aliases"] = value.get("aliases")  # EasyEdit has none of its own; a user may add them
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
        texts = [text for text in _texts(value) if isinstance(text, str)]
        if any(re.search("[\ud800-\udfff]", text) for text in texts):
            yield f"{key} holds half of a character (a lone surrogate) and cannot be encoded"
        if all(text.strip() for text in texts):
            continue
        if isinstance(value, tuple):
            yield f"{key} holds a blank text; remove it"
        else:
            optional = key in ("id", "subject")
            yield f"{key} is blank; {'leave it out or fill it in' if optional else 'fill it in'}"


def _texts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


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


def _find_problems(placed: Iterable[tuple[str, EditRecord]]) -> Iterator[Problem]:
    """What is wrong with edits, one by one and among each other, as far as no tokenizer is needed."""
    first_id: dict[str, str] = {}
    first_prompt: dict[str, tuple[str, str]] = {}
    for where, record in placed:
        if record.id in first_id:
            yield Problem(where, f"id {record.id!r} is already used at {first_id[record.id]}")
        first_id.setdefault(record.id, where)
        seen, target = first_prompt.setdefault(normalise(record.prompt), (where, record.target))
        if normalise(target) != normalise(record.target):
            both = f"{target!r} at {seen}, {record.target!r} here"
            yield Problem(where, f"the same prompt has two targets: {both}")
        yield from (Problem(where, what) for what in _faults(record))


def _faults(record: EditRecord) -> Iterator[str]:
    fields = dict(record)
    yield from _blank_fields(fields)
    for key, value in fields.items():
        if value is not None and any(WEIGHT_TOKEN in text for text in _texts(value)):
            yield f"{key} contains {WEIGHT_TOKEN}, which is reserved for the gate"
    if record.aliases and record.subject is None:
        yield "aliases need a subject; name the one that they are other names of"


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
