"""Readers of the data sets: each file's own fields become one type of record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from onceedit_vllm.config import Dataset
from onceedit_vllm.editing.raw_records import Problem, RawRecord, read_raw_records
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.evaluation.record import ASKING, EvalRecord, Stratum

DATASETS: tuple[Dataset, ...] = get_args(Dataset)
#: Problems that a message prints before it only counts the rest.
_SHOWN = 20

#: A prompt, or a prompt and its answer.
_Question = str | tuple[str, str | None]


def read_records(path: Path, dataset: Dataset) -> list[EvalRecord]:
    """Read a data set.

    Args:
        path: Its file.
        dataset: Which one it is. `jsonl` is a user's own: the fields of an edit, and `old_answer`,
            `alias_prompts`, `same_subject` (lists of prompts), `portability` and `yes_no` (lists of
            `{"prompt", "answer"}`).

    Raises:
        BadInputError: The file cannot be read, or a record lacks what the data set's records have; the
            message lists the records.
    """
    raws, problems = read_raw_records(path)
    records = []
    for raw in raws:
        try:
            records.append(_read_record(raw, dataset))
        except (KeyError, TypeError, ValidationError) as error:
            problems.append(Problem(raw.where, _explain(error)))
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            problems.append(Problem(f"id {record.id}", "is used twice; ids name the answers that are kept"))
        seen.add(record.id)
    if not records and not problems:
        problems.append(Problem("line 1", "the file is empty"))
    if problems:
        raise _unreadable(path, dataset, problems)
    return records


def _unreadable(path: Path, dataset: Dataset, problems: Iterable[Problem]) -> BadInputError:
    lines = [f"  {problem.where}: {problem.what}" for problem in problems]
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    listed = "\n".join(lines[:_SHOWN] + more)
    return BadInputError(
        f"{path}: {len(lines)} of its records cannot be read as {dataset}; is it another data set "
        f"({', '.join(DATASETS)})?\n{listed}"
    )


def _explain(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return "is not an object with the fields of this data set"


def _read_record(raw: RawRecord, dataset: Dataset) -> EvalRecord:
    value = raw.value
    if not isinstance(value, dict):
        raise TypeError
    number = value.get("id", value.get("case_id"))
    name = str(number) if isinstance(number, int | str) else f"{raw.where.split()[0]}-{raw.position}"
    return _READERS[dataset](name, value)


def _make(name: str, edit: dict[str, Any], strata: dict[Stratum, Iterable[_Question]]) -> EvalRecord:
    """A record; a prompt that a stratum holds twice is asked once."""
    asked = {"edit": [edit["prompt"]], **strata}
    questions = []
    for stratum, items in asked.items():
        pairs = [item if isinstance(item, tuple) else (item, None) for item in items]
        for prompt, answer in dict.fromkeys(pairs):
            wanted = edit["target"] if stratum in ASKING else answer
            questions.append({"stratum": stratum, "prompt": prompt, "answer": wanted})
    return EvalRecord.model_validate({"id": name, **edit, "questions": questions})


# --- one reader for each data set ------------------------------------------------------------


def _zsre(name: str, value: dict[str, Any]) -> EvalRecord:
    edit = {"prompt": value["src"], "target": value["alt"], "subject": value.get("subject")}
    edit["old_answer"] = next(iter(value.get("answers") or [value.get("pred")]), None)
    return _make(name, edit, {
        "rephrase": _listed(value.get("rephrase")),
        "locality": [(prompt, value.get("loc_ans")) for prompt in _listed(value.get("loc"))],
    })  # fmt: skip


def _counterfact(name: str, value: dict[str, Any]) -> EvalRecord:
    edit = {key: value.get(key) for key in ("prompt", "subject")} | {"target": value["target_new"]}
    edit["old_answer"] = value.get("ground_truth")
    truth = value.get("locality_ground_truth")
    return _make(name, edit, {
        "rephrase": _listed(value["rephrase_prompt"]),
        "locality": [(prompt, truth) for prompt in _listed(value["locality_prompt"])],
    })  # fmt: skip


def _counterfact_relations(name: str, value: dict[str, Any]) -> EvalRecord:
    asked = value["requested_rewrite"]
    edit = {"prompt": asked["prompt"], "target": asked["target_new"], "subject": asked.get("subject")}
    edit["old_answer"] = asked.get("target_true")
    return _make(name, edit, {
        "rephrase": (prompt for prompt, _ in _prompts(value, "p-paraphrase")),
        "alias": (prompt for prompt, _ in _prompts(value, "p-subject_alias")),
        "locality": _prompts(value, "l-neighbor"),
        "same_subject": _prompts(value, "l-relation"),
        "generation": (prompt for prompt, _ in _prompts(value, "generation")),
        "unrelated": _listed(value.get("o-commonsense", {}).get("prompts")),
        "portability": _by_prompt(_prompts(value, "p-reasoning")),
    })  # fmt: skip


def _qaedit(name: str, value: dict[str, Any]) -> EvalRecord:
    edit = {key: value.get(key) for key in ("prompt", "target", "subject")}
    # Its ids are unique among the questions of one source only.
    return _make(f"{value['source']}-{name}" if "source" in value else name, edit, {
        "rephrase": _listed(value["rephrase"]),
        "locality": [(item["loc"], item.get("loc_ans")) for item in value.get("locality", [])],
    })  # fmt: skip


def _halluedit(name: str, value: dict[str, Any]) -> EvalRecord:
    edit = {"prompt": value["question"], "target": value["object"], "subject": value.get("subject")}
    edit["old_answer"] = value.get("old_answer")
    hops = [(value["question_2hop"], value.get("answer_2hop"))] if value.get("question_2hop") else []
    reversed_ = _listed(value.get("reversed_relation_question"))
    return _make(name, edit, {
        "rephrase": _listed(value["paraphrased_question"]),
        "same_subject": _listed(value.get("locality_question")),
        "portability": [*hops, *((prompt, value["subject"]) for prompt in reversed_)],
        "yes_no": [
            *((prompt, "Yes") for prompt in _listed(value.get("yes_question"))),
            *((prompt, "No") for prompt in _listed(value.get("no_question"))),
        ],
    })  # fmt: skip


def _jsonl(name: str, value: dict[str, Any]) -> EvalRecord:
    kept = ("prompt", "target", "subject", "old_answer")
    edit = {key: value.get(key) for key in kept} | {"aliases": value.get("aliases", ())}
    return _make(name, edit, {
        "rephrase": _listed(value.get("rephrases")),
        "alias": _listed(value.get("alias_prompts")),
        "locality": _listed(value.get("locality")),
        "same_subject": _listed(value.get("same_subject")),
        "portability": [(item["prompt"], item["answer"]) for item in value.get("portability", [])],
        "yes_no": [(item["prompt"], item["answer"]) for item in value.get("yes_no", [])],
    })  # fmt: skip


_READERS: dict[Dataset, Callable[[str, dict[str, Any]], EvalRecord]] = {
    "zsre": _zsre,
    "counterfact": _counterfact,
    "counterfact-relations": _counterfact_relations,
    "qaedit": _qaedit,
    "halluedit": _halluedit,
    "jsonl": _jsonl,
}


def _listed(value: Any) -> list[str]:
    """A text or a list of texts."""
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _prompts(value: dict[str, Any], field: str) -> Iterator[tuple[str, str | None]]:
    """Prompts with their answers, None where the field has no answers."""
    part = value.get(field) or {"prompts": []}
    prompts = part["prompts"]
    yield from zip(prompts, part.get("targets") or [None] * len(prompts), strict=True)


def _by_prompt(pairs: Iterable[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """The first answer of each prompt: some have several that are right."""
    first: dict[str, str | None] = {}
    for prompt, answer in pairs:
        first.setdefault(prompt, answer)
    return list(first.items())
