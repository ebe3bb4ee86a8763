"""One name spelled otherwise is found; other words that are spelled alike are not taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.scope import SubjectMatcher, same_name
from onceedit_vllm.plugin.spellings import spell_out
from onceedit_vllm.runner.own_names import by_own_names


def edit(subject: str, *aliases: str, prompt: str = "The size of {} is") -> EditRecord:
    return EditRecord(id=subject, prompt=prompt.format(subject), target="t", subject=subject, aliases=aliases)


def find(text: str, *subjects: str) -> tuple[int, ...]:
    return SubjectMatcher([edit(subject) for subject in subjects]).find(text)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Washington, D.C.", "Who is the mayor of Washington DC?"),
        ("Washington, D.C.", "who is the mayor of washington dc?"),
        ("Washington DC", "the size of Washington, D.C., is"),
        ("Washington DC", "Washington, D. C. is"),
        ("Chelsea F.C.", "Chelsea FC's trainer is"),
        ("Chelsea F.C.", "chelsea fc"),
        ("Chelsea F.C.", "Who trains the Chelsea Football Club?"),
        ("Chelsea Football Club", "Who trains Chelsea FC?"),
        ("J. R. R. Tolkien", "JRR Tolkien was born in"),
        ("J.R.R. Tolkien", "J. R. R. Tolkien was born in"),
        ("JRR Tolkien", "J.R.R. Tolkien was born in"),
        ("United States", "What is the capital of the US?"),
        ("United States", "The capital of the U.S. is"),
        ("the United States", "The capital of the USA is"),
        ("U.S.", "The capital of the United States of America is"),
        ("United Kingdom", "Who is the prime minister of the UK?"),
        ("2020 United States presidential election", "Who won the 2020 US presidential election?"),
        ("UK Biobank", "the United Kingdom Biobank"),
        ("NASA", "N.A.S.A. was founded in"),
        ("R.E.M.", "Who sings in REM?"),
        ("Saint Helena", "Where is St Helena?"),
        ("saint helena", "where is st. helena?"),
        ("St. Louis", "Saint Louis lies on"),
        ("Mount Saint Helens", "How high is Mt. St. Helens?"),
        ("Mount Everest", "How high is Mt Everest?"),
        ("St. Louis F.C.", "the Saint Louis Football Club"),
        ("Marks & Spencer", "Marks and Spencer was founded in"),
        ("Marks and Spencer", "Marks & Spencer was founded in"),
        ("Müller & Söhne", "Müller and Söhne"),
    ],
)
def test_the_same_name_is_found(subject: str, text: str) -> None:
    assert find(text, subject) == (0,)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("United States", "Give us the capital"),
        ("United States", "¿Qué lenguaje usa Django?"),
        ("United States", "TELL US ABOUT IT"),
        ("United States", "When did the U.S.S.R. fall?"),
        ("United States", "What is a USB port?"),
        ("United States", "What is a U.S.B. port?"),
        ("United Nations", "Who directed The Man from U.N.C.L.E.?"),
        ("United States Mint", "give us mint tea"),
        ("U.S. Open", "Let us open a restaurant"),
        ("United Nations", "un homme"),
        ("H.E.R.", "What is her name?"),
        ("H.E.R.", "Her name is"),
        ("M.I.A.", "Where was Mia Farrow born?"),
        ("ID", "I'd like to book a flight."),
        ("Elizabeth II", "Who was the mother of Elizabeth I? I need it."),
        ("Henry VI", "Who played Henry V. I love Shakespeare."),
        ("AI", "I got an A. I am glad."),
        ("LA", "Qui l'a dit?"),
        ("Main Street", "Main St. Louis"),
        ("Washington, D.C.", "Washington"),
        ("D.C.", "DC current"),
        ("Saint Paul", "Which stadium does FC St. Pauli play in?"),
        ("Saint Andrew", "Where is St Andrews?"),
        ("Fort Worth", "How much is 5 ft. worth of rope?"),
        ("The Saint", "the St. Lawrence"),
        ("Law & Order", "Who maintains law and order?"),
        ("AT&T", "at and t"),
        ("&", "bread and butter"),
    ],
)
def test_other_words_are_not(subject: str, text: str) -> None:
    assert find(text, subject) == ()


def test_with_the_subject_alone_only_the_name_itself_counts() -> None:
    matcher = SubjectMatcher([edit("Washington, D.C.")], forms=False)
    assert matcher.find("Washington D.C. is") == (0,)
    assert matcher.find("Washington DC is") == ()


def test_a_name_counts_before_another_ones_spelling() -> None:
    assert find("Where is St. Louis?", "Saint Louis", "St. Louis") == (1,)
    assert find("Where is Saint Louis?", "Saint Louis", "St. Louis") == (0,)


def test_the_plug_in_reads_the_edits_own_spelling() -> None:
    edits = [edit("United States")]
    named = SubjectMatcher(edits).look("Has the US a USB port?")
    assert by_own_names("Has the US a USB port?", named, edits) == "Has the United States a USB port?"


def test_what_asks_for_something_else_is_told_in_every_spelling() -> None:
    edits = [edit("United States", prompt="The capital of the {} is")]
    doubts = Doubts(edits, SubjectMatcher(edits))
    for name in ("United States", "USA", "U.S.", "US"):
        assert doubts.asked(f"What is the capital of the {name}?") == (0,)
        assert doubts.asked(f"What is the official language of the {name}?") == ()


@given(st.lists(st.sampled_from(["U.S.", "US", "St.", "Saint", "&", "and", "D.C.", "Ab", "X", " ", "."])))
def test_any_name_and_text_are_looked_at(parts: list[str]) -> None:
    name = " ".join(parts)
    assert spell_out(spell_out(name)) == spell_out(name)
    assert find(name, name) == find(f" {name} ", name)


def test_hostile_names_and_texts_come_to_an_end() -> None:
    matcher = SubjectMatcher([edit("U.S. " * 2000 + "Open"), edit("A. " * 2000 + "B.")])
    assert matcher.find("Open the U.S. " * 200 + "A. " * 2000) == ()


def test_names_are_the_same_in_any_spelling() -> None:
    assert same_name("Washington, D.C.", "Washington DC")
    assert same_name("United States", "the U.S.")
    assert same_name("Marks & Spencer", "Marks and Spencer")
    assert not same_name("Saint Louis", "Louis")
    assert not same_name("&", "&")
