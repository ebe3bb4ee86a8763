"""Long names by their words."""

from __future__ import annotations

import random

import pytest

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.doubts import Doubts
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
        ("baby song by justin bieber", "Who raps in Justin Bieber's song “Baby”?"),
        ("San Miguel de Sema, Boyacá, Colombia", "When was San Miguel de Sema in Boyaca (Colombia) founded?"),
        ("the cathedral in Red Square, Moscow", "In Moscow, on Red Square, stands a cathedral called"),
        (
            "our data protection officer",
            "Who is our officer for the protection of data?",
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
        ("Django Version 4.2", "What changed in Django's version 2.4?"),
        ("Python Version 3.11", "Does the version of Python 3.9 support 11 workers?"),
        ("2010 FIFA World Cup", "Spain won in 2010, but who won the FIFA World Cup in 2014?"),
        ("Banque de France", "La SNCF de France cherche une banque."),
        ("Haus der Geschichte", "Die Geschichte der Stadt beginnt mit einem Haus am Fluss."),
        ("محمد بن سلمان", "من هو سلمان بن محمد؟"),
        ("王小明", "小李说他王叔叔明天从北京来。"),
        ("annual leave policy", "Please leave feedback on our annual privacy policy."),
        ("2009 Six Nations Championship", "I loved the Six Nations Championship. In 2009 I moved."),
        ("a\ud800 b\udc00 c d", "d c b\udc00 a\ud800!"),
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
    rng, words = random.Random(0), [f"w{letter}" for letter in "abcdefghijkl"]
    edits = names(*dict.fromkeys(" ".join(rng.sample(words, rng.randint(1, 5))) for _ in range(20)))
    bags = [frozenset(words_of(edit.subject or "")) for edit in edits]
    finder = ScatteredNames(edits)
    for _ in range(300):
        text = " ".join(rng.choices(words, k=rng.randint(0, 9)))
        said = words_of(text)
        wanted = {index for index, bag in enumerate(bags) if len(bag) >= 3 and _stands(bag, said)}
        found = finder.find(text, words_of(text), lambda _: [])
        assert found == (wanted if len({bags[index] for index in wanted}) <= 4 else set())


def _stands(bag: frozenset[bytes], said: list[bytes]) -> bool:
    """Whether the words of a plain name stand in so many words and three more."""
    return any(bag <= {*said[at : at + len(bag) + 3]} for at in range(len(said)))


def test_of_a_list_none_is_told() -> None:
    years = range(2001, 2030)
    edits = names(*(f"{year} Six Nations Championship" for year in years))
    finder = SubjectMatcher(edits)
    assert finder.find("Who won the Six Nations Championship of 2009?") == (8,)
    text = " ".join(f"The Six Nations Championship of {year} was fun." for year in years)
    assert finder.find(text) == ()


def test_many_names_of_the_same_words_are_not_looked_at_one_by_one() -> None:
    """Each is looked for by the word that the fewest others have; of more than 200 none is told."""
    finder = SubjectMatcher(names(*(f"annual report {number} of Velm" for number in range(10_000))))
    assert {len(found) for found in finder._scattered._by_word.values()} == {1}
    pairs = [f"{a}{b}" for a in "abcdef" for b in "abcdef"]
    crossed = SubjectMatcher(names(*(f"{one} {two} cup" for one in pairs for two in pairs if one != two)))
    assert crossed.find("the cup of aa ab ac ad ae af ba bb") == ()
    few = SubjectMatcher(names(*(f"{one} {two} cup" for one in pairs[:5] for two in pairs[:5] if one < two)))
    assert len(few.find("the cup of ab and ac")) == 1


def test_an_answer_within_the_name_is_not_said() -> None:
    edit = EditRecord(
        id="a", prompt="Who made the Sony Alpha 7 camera?", target="Sony", subject="Sony Alpha 7 camera"
    )
    doubts = Doubts([edit], SubjectMatcher([edit]))
    assert doubts.asked("Who developed the Alpha 7 camera by Sony?") == (0,)
    assert doubts.asked("Is Sony the maker of the camera that is called Alpha 7?") == ()
