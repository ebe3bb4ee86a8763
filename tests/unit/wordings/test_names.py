"""Names and answers in texts: whatever their case and accents, and never by accident."""

from __future__ import annotations

import pytest

from onceedit_vllm.wordings.names import are_alike, is_like, is_telling, leaks, says


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("what's NORLAND'S capital", "Norland", True),
        ("Élise lives here", "Elise", True),
        ("the tale of genji was read", "The Tale of Genji", True),
        ("Norlanders sing", "Norland", False),
        ("挪威的首都", "挪威", True),
        ("anything", "?!", False),
    ],
)
def test_a_name_is_found_by_its_words(text: str, name: str, found: bool) -> None:
    assert says(text, name) is found


def test_a_target_in_the_subjects_own_name_does_not_leak() -> None:
    assert not leaks("Which system contains Enco River?", "Enco River", ["Enco River"])
    assert leaks("Does Enco River flow into Enco River?", "Enco", ["River"])
    assert leaks("Is Tarsk the capital of Norland?", "Tarsk", ["Norland"])


def test_texts_are_alike_whatever_their_articles() -> None:
    assert are_alike("Who is the head of Velcorp?", "who is head of Velcorp")
    assert not are_alike("Who founded Velcorp?", "Who built Velcorp?")


@pytest.mark.parametrize(
    ("alias", "name", "like"),
    [
        ("Mr Falk", "Orrin Falk", True),
        ("UKFI", "UK Financial Investments", False),
        ("USA", "United States America", True),
        ("the bridge builder", "Orrin Falk", False),
    ],
)
def test_an_alias_is_like_its_subject(alias: str, name: str, like: bool) -> None:
    assert is_like(alias, name) is like


@pytest.mark.parametrize(
    ("alias", "telling"), [("Bridge", False), ("the Lake", False), ("Lake Enco", True), ("It", False)]
)
def test_a_class_of_things_is_no_alias(alias: str, telling: bool) -> None:
    assert is_telling(alias) is telling
