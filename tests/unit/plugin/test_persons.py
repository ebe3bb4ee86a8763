"""Persons named more fully than their edit, or less; and who is somebody or something else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.persons import MOST_BETWEEN, PersonNames
from onceedit_vllm.plugin.scope import SubjectMatcher


def edit(subject: str, prompt: str = "The occupation of {} is", *aliases: str) -> EditRecord:
    return EditRecord(id=subject, prompt=prompt.format(subject), target="t", subject=subject, aliases=aliases)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Kamala Harris", "Who is the mother of Kamala Devi Harris?"),
        ("Lionel Messi", "The team of Lionel Andrés Messi's son is"),
        ("Alexi Laiho", 'Alexi "Wildchild" Laiho was born in'),
        ("Nancy Pelosi", "Is Nancy P. Pelosi retired?"),
        ("George Bush", "George H.W. Bush"),
        ("Lizzie Deane", "where did Lizzie de la Deane live"),
        ("Ulysses S. Grant", "President Ulysses Grant was born in"),
        ("Joseph James DeAngelo", "Joseph DeAngelo lives in"),
        ("José Ortega", "Jose Maria Ortega"),
        ("Ada Quill", "Is Ada-Maria Quill well?"),
    ],
)
def test_another_form_of_a_persons_name_is_found(subject: str, text: str) -> None:
    assert SubjectMatcher([edit(subject)]).find(text) == (0,)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Kamala Harris", "Kamala met Neil Harris"),
        ("Kamala Harris", "who is kamala devi harris"),  # small letters do not tell where a name ends
        ("Kamala Harris", "Kamala. Neil Harris"),
        ("Kamala Harris", "Harris Kamala"),
        ("George W. Bush", "George H. W. Bush"),
        ("George W. Bush", "George Prescott Bush"),
        ("Ada Quill", "Ada Bo Cy Di Ed Quill"),
        ("Kamala Harris", "Kamala Harri Son"),
    ],
)
def test_somebody_else_is_not(subject: str, text: str) -> None:
    assert SubjectMatcher([edit(subject)]).find(text) == ()


@pytest.mark.parametrize(
    ("subject", "prompt"),
    [
        ("Golden Bridge", "{} is located in"),
        ("Velcorp Motors", "The head of {} is"),
        ("Norland Sea", "The zorp of {} is"),
    ],
)
def test_what_is_no_person_has_its_own_name_only(subject: str, prompt: str) -> None:
    first, last = subject.split()
    assert SubjectMatcher([edit(subject, prompt)]).find(f"Tell me about {first} Gate {last}") == ()
    assert SubjectMatcher([edit(subject, prompt)]).find(f"Tell me about {subject}") == (0,)


def test_an_alias_is_a_name_too_and_all_edits_of_a_person_are_found() -> None:
    edits = [edit("JFK", "The spouse of {} is", "John Kennedy"), edit("John Kennedy", "{} was born in")]
    assert SubjectMatcher(edits).find("John Fitzgerald Kennedy") == (0, 1)


@given(st.text(alphabet="Ab .-'\"é", max_size=60), st.integers(0, MOST_BETWEEN + 2))
def test_as_many_words_as_are_said_stand_between(around: str, between: int) -> None:
    names = PersonNames([edit("Zed Quill")])
    text = " ".join(["Zed", *["Mia"] * between, "Quill"])
    assert names.find(f"{around} {text}") >= ({0} if 0 < between <= MOST_BETWEEN else set())
    assert not PersonNames([]).find(text)


def test_a_long_run_of_capitals_takes_no_longer_than_its_length() -> None:
    names = PersonNames([edit("Zed Quill")])
    assert names.find("Mia " * 20_000 + "Zed Mia Quill") == {0}
