"""The benchmark of prompts on which a scope goes wrong: every prompt is asked, or it is said why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import BENCHMARKS, smoke

pytestmark = pytest.mark.integration

PROMPTS = [json.loads(line) for line in (BENCHMARKS / "data" / "hard_scope.jsonl").read_text().splitlines()]


def test_smoke(tmp_path: Path) -> None:
    (case,) = smoke("hard_scope.py", tmp_path / "hard.json")["cases"]
    asked = sum(of["asking"] + of["others"] for of in case["kinds"].values())
    assert asked + len(case["contaminated"]) + case["without_a_chat_template"] == len(PROMPTS)
    assert case["without_a_chat_template"] == sum("turns" in each for each in PROMPTS)  # toys have none
    assert case["kinds"]["negation"]["others"] >= case["kinds"]["negation"]["untouched"]
    assert len(case["wrong"]) == asked - sum(
        of["answered"] + of["untouched"] for of in case["kinds"].values()
    )
    assert case["kinds"]["casing"]["asking"] > 0


def test_every_target_is_an_answer_of_the_demos_facts() -> None:
    facts = BENCHMARKS.parent / "examples" / "data" / "facts.jsonl"
    known = {json.loads(line)["target"] for line in facts.read_text().splitlines()}
    assert {each["target"] for each in PROMPTS if each["target"]} <= known
    assert all(each["kind"] and ("prompt" in each) != ("turns" in each) for each in PROMPTS)
