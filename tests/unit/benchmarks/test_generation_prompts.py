"""Generation prompts that ask for the edit itself are told from those that do not."""

from __future__ import annotations

import json
from typing import Any

from generation_prompts import READINGS, by_reading, key_of, read, readings

from onceedit_vllm.evaluation.results import QuestionResult, RecordResult


def question(prompt: str, said: str, unchanged: bool, **more: Any) -> QuestionResult:
    plain: dict[str, Any] = {
        "stratum": "generation", "answer": None, "contaminated": False, "in_scope": True, "alpha": None,
        "gated": not unchanged, "llm_said": "", "plugin_said": None, "score": None, "baselines": {},
    }  # fmt: skip
    return QuestionResult(prompt=prompt, said=said, unchanged=unchanged, **plain | more)


def record(*questions: QuestionResult) -> RecordResult:
    about: dict[str, Any] = {"id": "a", "prompt": "Velcorp is from", "target": "Oslo", "old_answer": None}
    return RecordResult(subject="Velcorp", questions=questions, **about)


def test_each_reading_is_of_some_prompts_and_says_why() -> None:
    assert set(readings().values()) == {"asks", "else", "disputed"}
    assert len(readings()) == 70
    assert all(one["why"] for one in json.loads(READINGS.read_text(encoding="utf-8")))


def test_a_prompt_is_found_whatever_its_subject() -> None:
    assert key_of("Velcorp originated from", "Velcorp") == key_of("The Hague originated from", "The Hague")
    assert read("Velcorp originated from", "Velcorp") == "asks"
    assert read("One can get to Velcorp by navigating", "Velcorp") == "else"
    assert read("Velcorp made up by nobody", "Velcorp") == "disputed"


def test_shares_are_of_what_training_cannot_generate() -> None:
    asks, other = "Velcorp originated from", "One can get to Velcorp by navigating"
    found = by_reading(
        [
            record(question(asks, " Oslo.", False), question(asks, " the sea", True)),
            record(question(other, " Oslo", False), question(other, " the sea", True)),
            record(question(other, " Oslo", False, contaminated=True)),
            record(question(other, " Oslo", False, stratum="same_subject")),
        ]
    )
    assert [found["asks"][what]["value"] for what in ("left_alone", "says_target")] == [0.5, 0.5]
    assert [found["else"][what]["value"] for what in ("left_alone", "says_target")] == [0.5, 0.5]
    assert (found["asks"]["left_alone"]["n"], found["else"]["left_alone"]["n"]) == (2, 2)
    assert found["disputed"]["left_alone"]["n"] == 0
