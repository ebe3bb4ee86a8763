"""What CounterFact's generation prompts ask for, and what became of those that ask for the edit.

They are called near and to be left alone, but some ask for the edit itself in other words. In
`data/generation_prompts.json` two language models have read each, which knew neither each other's reading nor
what any model says: "asks", where both say that the target is the right and true end of it, "else" where both
say that it is not, "disputed" otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from onceedit_vllm.evaluation.estimates import estimate
from onceedit_vllm.evaluation.results import QuestionResult, RecordResult
from onceedit_vllm.evaluation.scorers import is_exact

READINGS = Path(__file__).parent / "data" / "generation_prompts.json"


def by_reading(records: Sequence[RecordResult]) -> dict[str, dict[str, Any]]:
    """Of each reading's prompts that training cannot generate: how many are left alone or say the target."""
    found = {}
    for reading in sorted(set(readings().values())):
        asked = [
            [one for one in record.questions if _counts(one) and read(one.prompt, record.subject) == reading]
            for record in records
        ]
        found[reading] = {
            "left_alone": _share(asked, lambda one, _: one.unchanged, records),
            "says_target": _share(asked, lambda one, record: is_exact(one.said, record.target), records),
        }
    return found


def read(prompt: str, subject: str | None) -> str:
    """The reading of a prompt; those that nobody has read are disputed."""
    return readings().get(key_of(prompt, subject), "disputed")


def key_of(prompt: str, subject: str | None) -> str:
    """What a prompt is found by: none of the set's texts is kept here."""
    about = prompt.replace(subject, "{}") if subject else prompt
    return hashlib.sha256(about.encode()).hexdigest()[:16]


@cache
def readings() -> dict[str, str]:
    """By key."""
    return {one["sha256"]: one["reading"] for one in json.loads(READINGS.read_text(encoding="utf-8"))}


def _counts(question: QuestionResult) -> bool:
    return question.stratum == "generation" and not question.contaminated


def _share(
    asked: Sequence[Sequence[QuestionResult]],
    holds: Callable[[QuestionResult, RecordResult], bool],
    records: Sequence[RecordResult],
) -> dict[str, Any]:
    pairs = zip(asked, records, strict=True)
    return estimate(
        [[float(holds(one, record)) for one in questions] for questions, record in pairs]
    ).model_dump()
