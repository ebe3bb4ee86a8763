"""One name spelled otherwise is found; other words that are spelled alike are not taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.scope import SubjectMatcher, same_name
from onceedit_vllm.plugin.spellings import spellings


def finds(subject: str, text: str) -> bool:
    edit = EditRecord(id="e", prompt=f"The size of {subject} is", target="t", subject=subject)
    return bool(SubjectMatcher([edit], forms=False).find(text))


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Washington, D.C.", "Who is the mayor of Washington DC?"),
        ("Washington, D.C.", "Washington, D. C. is in"),
        ("Washington DC", "the size of Washington, D.C., is"),
        ("Chelsea F.C.", "Chelsea FC's trainer is"),
        ("Chelsea F.C.", "Who trains the Chelsea Football Club?"),
        ("Chelsea Football Club", "Who trains Chelsea FC?"),
        ("J. R. R. Tolkien", "J.R.R. Tolkien"),
        ("J. R. R. Tolkien", "JRR Tolkien was born in"),
        ("United States", "The capital of the U.S. is"),
        ("United States", "The capital of the USA is"),
        ("the U.S.", "The capital of the United States is"),
        ("2020 United States presidential election", "Who won the 2020 US presidential election?"),
        ("UK Biobank", "the United Kingdom Biobank"),
        ("NASA", "N.A.S.A. was founded in"),
        ("Saint Louis", "St. Louis lies on"),
        ("St. Louis", "Saint Louis lies on"),
        ("St Albans", "St. Albans"),
        ("Mount Everest", "How high is Mt Everest?"),
        ("Marks & Spencer", "Marks and Spencer was founded in"),
        ("Marks and Spencer", "Marks & Spencer was founded in"),
        ("Müller & Söhne", "Müller and Söhne"),
        ("AT&T", "AT&T's head is"),
    ],
)
def test_the_same_name_is_found(subject: str, text: str) -> None:
    assert finds(subject, text)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("United States", "Give us the capital"),
        ("U.S.", "Tell us more"),
        ("United Nations", "the nations united"),
        ("Mount Everest", "he mounted Everest"),
        ("Main Street", "Main St. Louis"),
        ("Washington, D.C.", "Washington"),
        ("D.C.", "dc current"),
        ("Tom & Jerry", "Tom, Jerry"),
        ("C.A.T.", "a dog"),
    ],
)
def test_other_words_are_not(subject: str, text: str) -> None:
    assert not finds(subject, text)


@given(st.text(max_size=40))
def test_a_name_is_its_own_first_spelling(name: str) -> None:
    found = spellings(name)
    assert found[0] == name
    assert len(set(found)) == len(found) < 20


def test_all_of_them_are_of_one_name() -> None:
    assert same_name("Marks & Spencer", "Marks and Spencer")
    assert spellings("Washington, D.C.") == ("Washington, D.C.", "Washington, DC")
    assert spellings("Oslo") == ("Oslo",)
