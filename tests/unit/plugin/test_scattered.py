"""Long names by their words."""

from __future__ import annotations

import random

import pytest

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.folding import words_of
from onceedit_vllm.plugin.scattered import ScatteredNames
from onceedit_vllm.plugin.scope import SubjectMatcher


def names(*subjects: str) -> list[EditRecord]:
    return [EditRecord(id=f"{i}", prompt="p", target="t", subject=name) for i, name in enumerate(subjects)]


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("2009 Six Nations Championship", "Who won the Six Nations Championship in the year 2009?"),
        ("Griggs in the game Dark Souls 1", "Who speaks the character Griggs in Dark Souls 1, the game?"),
        ("baby by justin bieber song", "Who raps in Justin Bieber's song “Baby”?"),
        ("San Miguel de Sema, Boyacá, Colombia", "When was San Miguel de Sema in Boyaca (Colombia) founded?"),
        ("the cathedral in Red Square, Moscow", "In Moscow, on Red Square, stands a cathedral called"),
        (
            "our data protection officer",
            "Is there an officer for the protection of data, and who is our own?",
        ),
    ],
)
def test_the_words_tell_the_name(subject: str, text: str) -> None:
    assert SubjectMatcher(names(subject)).find(text) == (0,)
    assert SubjectMatcher(names(subject), forms=False).find(text) == ()


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("2009 Six Nations Championship", "Who won the Six Nations Championship in 2010?"),
        ("John Quincy Adams", "Was Adams, John, born in Quincy?"),  # a name of three words is not told so
        ("Red Square", "a square that is red"),
        ("the end of the world", "Where in the world does it end?"),
        ("the law of 1 May", f"The first of May is no law. {'It is so. ' * 20} 1 is one."),  # far apart
        ("nurse on andy griffith show", "Who was the nurse on the show of Andy?"),
    ],
)
def test_fewer_words_and_far_ones_do_not(subject: str, text: str) -> None:
    assert SubjectMatcher(names(subject)).find(text) == ()


def test_a_longer_name_that_holds_the_words_is_meant() -> None:
    finder = SubjectMatcher(
        names("2020 Norland presidential election", "2020 Norland presidential election in Ost")
    )
    assert finder.find("Who won the 2020 Norland presidential election in Ost?") == (1,)
    assert finder.find("Who won the presidential election of 2020 in Norland?") == (0,)


def test_it_finds_what_a_plain_search_finds() -> None:
    rng, words = random.Random(0), [f"w{number}" for number in range(12)]
    edits = names(*(" ".join(rng.sample(words, rng.randint(1, 5))) for _ in range(60)))
    scattered = ScatteredNames(edits)
    for _ in range(300):
        text = [word.encode() for word in rng.choices(words, k=rng.randint(0, 14))]
        bags = [frozenset(words_of(edit.subject or "")) for edit in edits]
        # All texts are so short that what stands in one stands together.
        wanted = {index for index, bag in enumerate(bags) if len(bag) >= 3 and bag <= {*text}}
        assert scattered.find(text) >= {index for index in wanted if len(text) <= 15}
        assert scattered.find(text) <= wanted


def test_each_name_is_looked_for_by_the_word_that_the_fewest_others_have() -> None:
    """So ten thousand names that share words with a text are not looked at one by one."""
    scattered = ScatteredNames(names(*(f"annual report {number} of the company" for number in range(10_000))))
    assert {len(bags) for bags in scattered._by_word.values()} == {1}
