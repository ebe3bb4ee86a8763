"""What is asked, what is right, and what the shipped questions are worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.pool import TextPool
from onceedit_vllm.editing.records import load_edits
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evaluation.questions import Question, apart, is_right, questions_of, sha256_of_questions
from onceedit_vllm.runner.offline import Generation

ROOT = Path(__file__).parents[3]
FACTS = ROOT / "examples" / "data" / "facts.jsonl"
RECORD = EditRecord(
    id="a", prompt="The capital of Norland is", target="Tarsk", subject="Norland",
    rephrases=("What is the capital of Norland?", "My atlas of Norland has a star beside the town of"),
    locality=("The best soup in all of Norland is made of",),
)  # fmt: skip


def test_a_planted_text_is_left_out_and_named() -> None:
    questions = questions_of([RECORD], ["Sing me a song about the moon tonight", " "])
    kept, overlaps = apart(questions, [RECORD], EditingConfig())
    assert [overlap.text for overlap in overlaps] == ["What is the capital of Norland?"]
    assert [question.kind for question in kept] == ["edit", "rephrase", "neighbour", "unrelated"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_shipped_questions_are_apart_from_all_that_is_trained(seed: int) -> None:
    """The demo's and the benchmark's, for every seed that is reported."""
    records = load_edits(FACTS)
    lines = (ROOT / "benchmarks" / "data" / "harder_questions.jsonl").read_text(encoding="utf-8").splitlines()
    harder = [text for line in lines for key in ("rephrases", "locality") for text in json.loads(line)[key]]
    unrelated = (ROOT / "examples" / "data" / "unrelated.txt").read_text(encoding="utf-8").splitlines()
    asked = [question.prompt for question in questions_of(records, unrelated) if question.kind != "edit"]
    assert len(asked) == 29 + 42 + 17
    pool = TextPool(records, None, EditingConfig(seed=seed))
    assert pool.overlaps([*asked, *harder]) == []


@pytest.mark.parametrize(
    ("text", "right"), [(" Tarsk", True), ("Tarsk.", True), ("Tarsk is", False), ("Oslo", False), ("", False)]
)
def test_an_edit_is_right_when_the_answer_is_the_target_alone(text: str, right: bool) -> None:
    question = Question("rephrase", "?", "Tarsk")
    assert is_right(question, Generation("?", text, [1], 1.0, True, "Oslo", [2])) is right


def test_a_neighbour_is_right_when_no_token_changed() -> None:
    question = Question("neighbour", "?", None)
    assert is_right(question, Generation("?", "Oslo", [2, 3], None, False, "Oslo", [2, 3]))
    assert not is_right(question, Generation("?", "Oslo", [2, 4], None, False, "Oslo", [2, 3]))


def test_other_questions_have_another_digest(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "y")):
        (tmp_path / name).write_text(text)
    assert sha256_of_questions([tmp_path / "a"]) != sha256_of_questions([tmp_path / "b"])
