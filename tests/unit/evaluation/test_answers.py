"""The file of answers: what is in it is not asked again, and never mixed with other settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.evaluation.answers import AnswersFile, Key, Said

SETTINGS = {"protocol": "natural-stop", "threshold": None}
KEY, SAID = Key("a", "edit", 0, "edited"), Said(" Oslo\n", [3, 4], "f00")


def test_what_was_answered_is_known_to_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    AnswersFile(path, SETTINGS).add([(KEY, SAID)])
    again = AnswersFile(path, SETTINGS)
    assert KEY in again
    assert again[KEY] == SAID
    assert again.get(Key("a", "edit", 0, "llm")) is None


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = AnswersFile(path, SETTINGS)
    first.add([(KEY, SAID)])
    first.add([(Key("b", "edit", 0, "edited"), SAID)])
    path.write_bytes(path.read_bytes()[:-7])
    again = AnswersFile(path, SETTINGS)
    assert KEY in again
    assert Key("b", "edit", 0, "edited") not in again
    # What is appended now stands on a line of its own.
    again.add([(Key("b", "edit", 0, "edited"), SAID)])
    assert Key("b", "edit", 0, "edited") in AnswersFile(path, SETTINGS)


def test_a_file_that_was_cut_off_in_its_settings_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"settings": {"proto', encoding="utf-8")
    AnswersFile(path, SETTINGS).add([(KEY, SAID)])
    assert KEY in AnswersFile(path, SETTINGS)


def test_answers_to_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    AnswersFile(path, SETTINGS)
    with pytest.raises(BadInputError, match=r"protocol: natural-stop there, chat now\).*Remove it"):
        AnswersFile(path, {**SETTINGS, "protocol": "chat"})


@pytest.mark.parametrize("content", ["no JSON\n", '{"other": 1}\n', '{"settings": {"protocol": 1}}\n[1]\n'])
def test_another_file_is_not_overwritten(tmp_path: Path, content: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInputError):
        AnswersFile(path, {"protocol": 1})
    assert path.read_text(encoding="utf-8") == content
