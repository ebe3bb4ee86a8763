"""What augmentation finds out about an edit."""

from __future__ import annotations

from onceedit_vllm.editing.scopes import make_scopes, same_relation
from onceedit_vllm.edits import EditRecord

CAPITAL = EditRecord(id="a", prompt="The capital of the Norland is", target="Tarsk", subject="Norland")
CHIEF = EditRecord(id="b", prompt="Who is the CEO of Velcorp?", target="Ada Quill", subject="Velcorp")
ODD = EditRecord(id="c", prompt="qwerty asdf", target="zxcv")


def test_subject_frame_relation_and_wordings_are_found() -> None:
    scope = make_scopes([CAPITAL], 0)[0]
    assert (scope.subject, scope.name, scope.frame) == ("Norland", "the Norland", "The capital of the {} is")
    assert scope.relation is not None
    assert scope.relation.name == "capital"
    assert scope.kind == "country"
    assert {"{}'s capital city is", "What is the capital of {}?"} <= {*scope.frames, *scope.heldout}


def test_heldout_wordings_are_no_training_wordings_and_hang_on_the_seed() -> None:
    scopes = [make_scopes([CAPITAL], seed)[0] for seed in range(5)]
    assert all(scope.heldout and not {*scope.heldout} & {*scope.frames} for scope in scopes)
    assert len({scope.heldout for scope in scopes}) > 1


def test_a_frame_is_filled_with_the_name_and_its_article_once() -> None:
    scope = make_scopes([CAPITAL], 0)[0]
    assert scope.say("What is the capital of {}?") == "What is the capital of the Norland?"
    assert scope.say("The capital of the {} is") == CAPITAL.prompt


def test_a_prompt_without_a_subject_has_its_prompt_only() -> None:
    scope = make_scopes([ODD], 0)[0]
    assert scope[1:] == (None, None, None, None, None, (), ())


def test_close_relations_are_the_same() -> None:
    born = EditRecord(id="d", prompt="Ada Quill was born in", target="Oslo", subject="Ada Quill")
    lives = EditRecord(id="e", prompt="Ada Quill lives in", target="Bergen", subject="Ada Quill")
    capital, chief, birthplace, residence = make_scopes([CAPITAL, CHIEF, born, lives], 0)
    assert same_relation(birthplace, residence)
    assert not same_relation(capital, chief)
