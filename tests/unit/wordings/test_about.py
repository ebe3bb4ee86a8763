"""What is said of a subject beside its edits asks for none of them."""

from __future__ import annotations

import pytest

from onceedit_vllm.wordings.about import about, all_about, near, near_others
from onceedit_vllm.wordings.frames import is_question
from onceedit_vllm.wordings.relations import Relation, find_relations, relation_bank


def test_persons_and_things_have_things_to_say_of_their_own() -> None:
    persons, things = set(about("person")), set(about("building"))
    assert persons - things
    assert things - persons
    assert persons | things == {*about(None)}


def test_every_text_has_one_gap_and_stands_there_once() -> None:
    texts = list(all_about())
    assert len(texts) == len(set(texts))
    assert not [text for text in texts if text.count("{}") != 1]


@pytest.mark.parametrize("relation", relation_bank(), ids=lambda relation: relation.name)
def test_what_is_near_a_relation_does_not_ask_for_it(relation: Relation) -> None:
    texts = near(relation)
    assert len(texts) >= 10
    assert {is_question(text) for text in texts} == {True, False}
    asking = [text for text in texts for found in find_relations(text) if found.is_close_to(relation)]
    assert not asking
    assert not {*texts} & {*relation.wordings}


def test_others_are_of_the_same_type_of_subject_and_do_not_ask_for_this_one() -> None:
    mayor = next(relation for relation in relation_bank() if relation.name == "mayor")
    mother = next(relation for relation in relation_bank() if relation.name == "mother")
    others = near_others(mayor, mayor.subject)
    assert others
    assert not {*others} & {*near(mayor), *near(mother)}
    assert {*near(mayor), *near(mother)} <= {*near_others(None, None)}
    assert not [text for text in others for found in find_relations(text) if found.is_close_to(mayor)]
