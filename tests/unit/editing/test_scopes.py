"""What augmentation finds out about an edit."""

from __future__ import annotations

from onceedit_vllm.editing.scopes import make_scopes, same_relation
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.wordings.wordings import Wordings

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
    assert scope[1:8] == (None, None, None, None, None, (), ())


def test_close_relations_are_the_same() -> None:
    born = EditRecord(id="d", prompt="Ada Quill was born in", target="Oslo", subject="Ada Quill")
    lives = EditRecord(id="e", prompt="Ada Quill lives in", target="Bergen", subject="Ada Quill")
    capital, chief, birthplace, residence = make_scopes([CAPITAL, CHIEF, born, lives], 0)
    assert same_relation(birthplace, residence)
    assert not same_relation(capital, chief)


WRITTEN = Wordings(
    id="b",
    asking=(
        *(f"Say in {word} words who runs Velcorp" for word in ("few", "many", "other", "plain", "kind")),
        "VC is run by whom?",
        "Velcorp pays well. Who runs Velcorp?",
    ),
    others=tuple(f"Has Velcorp got {thing}?" for thing in ("cars", "hats", "ships", "boots")),
)


def test_written_wordings_are_frames_where_the_subject_stands_in_them_once() -> None:
    plain, scope = make_scopes([CHIEF], 0)[0], make_scopes([CHIEF], 0, [WRITTEN])[0]
    frames = {*scope.frames, *scope.heldout} - {*plain.frames, *plain.heldout}
    assert frames == {text.replace("Velcorp", "{}") for text in WRITTEN.asking[:5]}
    assert {*scope.texts, *scope.texts_heldout} == {*WRITTEN.asking[5:]}


def test_a_wording_by_an_alias_is_no_frame_of_the_name_in_it() -> None:
    named = CHIEF.model_copy(update={"aliases": ("Velcorp Mills",)})
    text = "Who is in charge at Velcorp Mills?"
    scope = make_scopes([named], 0, [Wordings(id="b", asking=(text,))])[0]
    assert scope.texts == (text,)


def test_a_quarter_of_what_was_written_is_held_out_and_nothing_twice() -> None:
    for seed in range(6):
        scope = make_scopes([CHIEF], seed, [WRITTEN])[0]
        assert (len(scope.others), len(scope.others_heldout)) == (3, 1)
        assert {*scope.others, *scope.others_heldout} == {*WRITTEN.others}
        assert not {*scope.frames} & {*scope.heldout}
        assert not {*scope.texts} & {*scope.texts_heldout}
    few = WRITTEN.model_copy(update={"others": WRITTEN.others[:3]})
    assert make_scopes([CHIEF], 0, [few])[0].others_heldout == ()


def test_edits_without_written_wordings_stay_as_they_are() -> None:
    assert make_scopes([CAPITAL, CHIEF], 3, [WRITTEN])[0] == make_scopes([CAPITAL, CHIEF], 3)[0]
