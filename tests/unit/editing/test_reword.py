"""Frames, subjects, and other wordings."""

from __future__ import annotations

import random

import pytest

from onceedit_vllm.editing.reword import reword
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.wordings.frames import fill, find_subject, to_frame
from onceedit_vllm.wordings.relations import draw_similar_name, find_relation, find_type, relation_bank


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("The capital of France is", "France"),
        ("Who is the CEO of Apple?", "Apple"),
        ("The Eiffel Tower is located in", "Eiffel Tower"),
        ("What is Elise Halden's job?", "Elise Halden"),
        ("The colour of grass is", "grass"),
        ("The telephone was invented by", "telephone"),
        ("qwerty asdf", None),
    ],
)
def test_a_missing_subject_is_guessed(prompt: str, subject: str | None) -> None:
    assert find_subject(EditRecord(id="a", prompt=prompt, target="x")) == subject


def test_a_given_subject_is_used_as_the_prompt_writes_it() -> None:
    assert find_subject(EditRecord(id="a", prompt="THE MOON is", target="x", subject="Moon")) == "MOON"


@pytest.mark.parametrize(
    ("subject", "kind"),
    [
        ("France", "country"),
        ("The Eiffel Tower", "building"),
        ("Dr. Ilse Vantongeren", "person"),
        ("Anna Vantongeren", "person"),
        ("Brightfern Robotics", "company"),
        ("Lake Orvane", "place"),
        ("Zephyrlang", None),
    ],
)
def test_types_of_subjects(subject: str, kind: str | None) -> None:
    assert find_type(subject) == kind


def test_frames_and_filling() -> None:
    assert to_frame("Is France in France?", "France") == "Is {} in France?"
    assert to_frame("Francesca is", "France") is None
    assert to_frame("a {} b France", "France") is None
    assert fill("The maker of the {} is", "the iPhone") == "The maker of the iPhone is"
    assert fill("{} is made by", "the iPhone") == "The iPhone is made by"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ("The capital of {} is", ["{}'s capital is", "What is the capital of {}?"]),
        ("{}'s author is", ["Who is the author of {}?"]),
        ("What is the colour of {}?", ["The colour of {} is", "{}'s colour is"]),
        ("Who wrote {}?", ["{} was written by", "The person who wrote {} is"]),
        ("{} was painted by", ["Who painted {}?"]),
        ("{} is located in", ["Where is {} located?"]),
        ("Where is {}?", ["{} is located in"]),
        ("{} works for", ["What does {} work for?"]),
        ("Which club does {} play for?", ["{} plays for", "The club that {} plays for is"]),
        ("The company {} was founded by", ["Who founded {}?", "{} was founded by"]),
        ("How many moons does {} have?", ["The number of moons of {} is", "{}'s number of moons is"]),
        ("{} sank in the year", ["In what year did {} sink?", "When did {} sink?"]),
        ("The {} orbits the planet", ["Which planet does the {} orbit?", "The planet that the {} orbits is"]),
        ("When was {} established?", ["{} was established in", "In what year was {} established?"]),
        ("{} carries", ["What does {} carry?"]),
        ("{} moved to", ["Where did {} move?"]),
        ("asdf {} ghjk", []),
    ],
)
def test_rewording(frame: str, expected: list[str]) -> None:
    found = reword(frame)
    assert set(expected) <= set(found)
    assert frame not in found
    assert all(other.count("{}") == 1 for other in found)


def test_the_bank_recognises_its_own_prompts() -> None:
    assert {relation.name for relation in relation_bank()} >= {"capital", "chief", "author", "currency"}
    for frame, name in {
        "The capital of {} is": "capital",
        "Who is the CEO of {}?": "chief",
        "{} was born in": "birthplace",
        "{} was founded in": "founding_year",
        "{} is located in": "location",
    }.items():
        relation = find_relation(frame)
        assert relation is not None
        assert relation.name == name
    assert find_relation("qwerty {} asdf") is None


def test_bank_wordings_have_exactly_one_gap() -> None:
    wordings = [wording for relation in relation_bank() for wording in relation.wordings]
    assert len(wordings) > 300
    assert all(wording.count("{}") == 1 for wording in wordings)


def test_similar_names_share_a_word() -> None:
    rng = random.Random(0)
    similar = draw_similar_name("Elise Halden", rng)
    assert similar is not None
    assert similar != "Elise Halden"
    assert set(similar.split()) & {"Elise", "Halden"}
    assert draw_similar_name("France", rng) is None


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        ("What gender is {}?", "gender"),
        ("The name of the mother of {} is", "mother"),
        ("The mother tongue of {} is", "native_language"),
        ("What record label is {} signed to?", "record_label"),
        ("{} expired at", "death_place"),
        ("When did {} die?", "death_date"),
        ("What did {} die of?", "death_cause"),
        ("The original language of {} was", "work_language"),
        ("The official language of {} is", "official_language"),
        ("{} is within", "location"),
        ("Of which constellation is {} a part?", "constellation"),
        ("The name of the league which {} plays in is", "league"),
        # More is said than the relation's words: its wordings would ask for something else.
        ("What was the original name of {}, located north of Brockville?", None),
        ("At what age was {} invited by the President to the White House?", None),
        ("What country did {} and her husband start a counseling practice in?", None),
        ("Which {} is named after a city?", None),
        ("{} was born in 1901 in", None),
        # A date is asked for, and the relation knows none.
        ("In what year did {} join the club?", None),
        ("Where was {} opened?", None),
    ],
)
def test_a_relation_is_found_where_nothing_else_is_asked(frame: str, name: str | None) -> None:
    relation = find_relation(frame)
    assert (relation.name if relation else None) == name


def test_hardly_any_wording_of_the_bank_is_taken_for_another_relation() -> None:
    bank = relation_bank()
    assert len({relation.name for relation in bank}) == len(bank) > 90
    wordings = [(relation, wording) for relation in bank for wording in relation.wordings]
    taken = [
        (relation.name, wording, found.name)
        for relation, wording in wordings
        if (found := find_relation(wording)) is not None and not found.is_close_to(relation)
    ]
    assert len(taken) <= 20, taken
