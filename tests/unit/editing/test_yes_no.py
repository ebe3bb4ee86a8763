"""Questions whether an edit is so, and denials of it."""

from __future__ import annotations

import pytest

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter
from onceedit_vllm.editing.scopes import make_scopes
from onceedit_vllm.editing.yes_no import doubts
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.wordings.about import about

RECORDS = [
    EditRecord(id="a", prompt="The capital of Norland is", target="Tarsk", subject="Norland"),
    EditRecord(id="b", prompt="The Long Bridge is located in", target="Velm", subject="Long Bridge"),
    EditRecord(id="c", prompt="Who leads Velcorp?", target="Ada Quill", subject="Velcorp"),
]


@pytest.mark.parametrize(
    ("prompt", "subject", "answer", "expected"),
    [
        ("The capital of Norland is", "Norland", "Tarsk", "Is Tarsk the capital of Norland?"),
        ("The parents of Ada were", "Ada", "Bo and Cid", "Were Bo and Cid the parents of Ada?"),
        ("The Long Bridge is located in", "Long Bridge", "Velm", "Is the Long Bridge located in Velm?"),
        ("Ada was born in", "Ada", "Velm", "Was Ada born in Velm?"),
        ("The capital of Norland is", "Norland", "Tarsk", "Is it true that the capital of Norland is Tarsk?"),
        ("The capital of Norland is", "Norland", "Tarsk", "The capital of Norland is not"),
        ("Who leads Velcorp?", "Velcorp", "Ada Quill", "Who leads Velcorp? Is it Ada Quill?"),
        ("Who is the head of Velcorp?", "Velcorp", "Ada Quill", "Is Ada Quill the head of Velcorp?"),
        ("What was the age of Ada?", "Ada", "ten", "Was the age of Ada ten?"),
    ],
)
def test_doubts(prompt: str, subject: str, answer: str, expected: str) -> None:
    assert expected in list(doubts(prompt, subject, answer))


def test_what_ends_in_no_verb_is_not_turned_round() -> None:
    texts = list(doubts("Velcorp hires from", "Velcorp", "Velm"))
    assert texts
    assert not [text for text in texts if text.startswith(("Is Vel", "Was Vel")) or " not" in text]


def test_a_part_is_held_out_and_every_form_is_trained_by_some_edit() -> None:
    records = [RECORDS[0].model_copy(update={"id": str(number)}) for number in range(20)]
    scopes = make_scopes(records, seed=0)
    for scope in scopes:
        assert scope.doubts
        assert scope.doubts_heldout
        assert not {*scope.doubts} & {*scope.doubts_heldout}
        fitting = about(scope.kind)
        assert {*scope.about, *scope.about_heldout} == {*fitting}
        assert len(scope.about_heldout) == len(fitting) // 5
    assert len({scope.about_heldout for scope in scopes}) > 1
    assert {form for scope in scopes for form in scope.about} == {*about("country")}


def test_they_are_counter_examples_with_this_answer_and_with_anothers() -> None:
    augmenter = Augmenter(RECORDS, None, EditingConfig())
    drawn = [example for number in range(4) for example in augmenter.examples(number)]
    doubted = {text for scope in augmenter.scopes for text in (*scope.doubts, *scope.doubts_heldout)}
    found = [example for example in drawn if any(text in example.text for text in doubted)]
    assert found
    assert {example.label for example in found} == {0.0}
    held = {text for scope in augmenter.scopes for text in scope.doubts_heldout}
    assert not [example for example in found if any(text in example.text for text in held)]
    for scope in augmenter.scopes:
        others = {record.target for record in RECORDS} - {scope.record.target}
        mine = (*scope.doubts, *scope.doubts_heldout)
        assert any(scope.record.target in text for text in mine)
        assert any(other in text for text in mine for other in others)
