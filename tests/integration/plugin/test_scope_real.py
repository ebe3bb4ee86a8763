"""The search for subjects on public data: rephrases name their subject, unrelated questions name none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.scope import SubjectMatcher

pytestmark = pytest.mark.integration


def read(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))


def matcher_of(records: list[dict[str, Any]]) -> SubjectMatcher:
    return SubjectMatcher(
        [EditRecord(id=str(i), prompt="p", target="t", subject=r["subject"]) for i, r in enumerate(records)]
    )


@pytest.mark.parametrize(
    ("file", "field", "least"),
    [
        ("counterfact_edit_1000.json", "rephrase_prompt", 1000),
        ("zsre_700.json", "rephrase", 696),
        ("qaedit_500.json", "rephrase", 384),
    ],
)
def test_rephrases_name_their_subject(datasets: Path, file: str, field: str, least: int) -> None:
    records = read(datasets / file)
    matcher = matcher_of(records)
    assert sum(index in matcher.find(record[field]) for index, record in enumerate(records)) >= least


def test_unrelated_questions_seldom_name_one(datasets: Path) -> None:
    matcher = matcher_of(read(datasets / "counterfact_edit_1000.json"))
    questions = [record["src"] for record in read(datasets / "zsre_700.json")]
    assert sum(bool(matcher.find(question)) for question in questions) <= 0.02 * len(questions)
