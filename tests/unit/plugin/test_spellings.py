"""One name spelled otherwise is found; other words that are spelled alike are not taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.scope import SubjectMatcher, same_name
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
        ("the United States", "Who is US president?"),
        ("United States", "what is the capital of the u.s.?"),
        ("United States", "Has the US's army tanks?"),
        ("United Kingdom", "Who is the prime minister of the UK?"),
        ("United Kingdom", "who is the prime minister of the uk?"),
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
        ("Marks&Spencer", "Marks and Spencer was founded in"),
        ("Washington, D.C.", "Who is the mayor of Washington\nDC?"),
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
        ("United Nations", "UN HOMME est mort"),
        ("United States", "PLEASE HELP US with this bug"),
        ("United States", "What is US-ASCII?"),
        ("United States", "Set the locale to en-US."),
        ("United States", "the time of US/Eastern"),
        ("Marks & Spencer", "Marks. And Spencer left"),
        ("Chelsea F.C.", "I live in Chelsea. FC Barcelona plays"),
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who is the mayor of Washington DC?", (1,)),
        ("Who is the mayor of Washington?", (0,)),
        ("Who won the 2020 US presidential election?", (2,)),
        ("Who won the US Open?", (4,)),
        ("Who won the US Open in the US?", (3, 4)),
        ("Is Russia larger than the US?", (3, 5)),
        ("Is Washington larger than Washington DC?", (0, 1)),
    ],
)
def test_the_longest_counts_among_names_and_spellings(text: str, expected: tuple[int, ...]) -> None:
    names = (
        *("Washington", "Washington, D.C.", "2020 United States presidential election"),
        *("United States", "US Open", "Russia"),
    )
    assert find(text, *names) == expected


def test_one_text_may_be_a_spelling_of_several_names() -> None:
    edits = [edit("U.S."), edit("United States"), edit("America", "United States of America")]
    assert SubjectMatcher(edits).find("What is the capital of the USA?") == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Has the US a USB port?", "Has the United States a USB port?"),
        ("I live in the US. What is its capital?", "I live in the United States. What is its capital?"),
        ("I live in the U.S. What is its capital?", "I live in the United States What is its capital?"),
        ("Is the U.S. Open in the US?", "Is the US Open in the United States?"),
        ("Has the US a server at http://US.archive?", "Has the United States a server at http://US.archive?"),
    ],
)
def test_the_plug_in_reads_the_edits_own_spelling(text: str, read: str) -> None:
    edits = [edit("the United States"), edit("US Open")]
    assert by_own_names(text, SubjectMatcher(edits).look(text), edits) == read


def test_a_form_in_one_sentence_is_not_in_another() -> None:
    edits = [edit("United States", prompt="The capital of the {} is").model_copy(update={"target": "Boston"})]
    doubts = Doubts(edits, SubjectMatcher(edits))
    assert doubts.asked("Is Boston the capital of the US? The USSR fell in 1991.") == ()


def test_what_asks_for_something_else_is_told_in_every_spelling() -> None:
    edits = [edit("United States", prompt="The capital of the {} is")]
    doubts = Doubts(edits, SubjectMatcher(edits))
    for name in ("United States", "USA", "U.S.", "US"):
        assert doubts.asked(f"What is the capital of the {name}?") == (0,)
        assert doubts.asked(f"What is the official language of the {name}?") == ()


@given(st.lists(st.sampled_from(["U.S.", "US", "St.", "Saint", "&", "and", "D.C.", "Ab", "X", " ", "."])))
def test_any_name_and_text_are_looked_at(parts: list[str]) -> None:
    name = " ".join(parts)
    assert find(name, name) == find(f" {name} ", name)


def test_hostile_names_and_texts_come_to_an_end() -> None:
    names = ("U.S. " * 30 + "Open", "St. " * 30 + "Open", "A. B " * 30 + "Open", "A & " * 30 + "Open")
    for name in names:
        assert find(f"Open {name.removesuffix('Open')}x", name) == ()
        assert find(f"Open {name}", name) == (0,)


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("Washington, D.C.", "Washington DC", True),
        ("United States", "the U.S.", True),
        ("Marks & Spencer", "Marks and Spencer", True),
        ("Saint Louis", "St. Louis", True),
        ("A.L. Kennedy", "Al Kennedy", False),
        ("A.L. Kennedy", "AL Kennedy", True),
        ("M.I.A.", "Mia", False),
        ("L.A.", "La", False),
        ("Main St", "Main Saint", False),
        ("Saint Louis", "Louis", False),
        ("&", "&", False),
    ],
)
def test_names_are_the_same_in_any_spelling(one: str, other: str, are_same: bool) -> None:
    assert same_name(one, other) == same_name(other, one) == are_same
