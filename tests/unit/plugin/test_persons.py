"""Persons in other forms of their names; who is somebody else; and what is no person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.persons import MOST_BETWEEN, PersonNames
from onceedit_vllm.plugin.scope import SubjectMatcher


def edit(subject: str, prompt: str = "The mother of {} is", *aliases: str) -> EditRecord:
    return EditRecord(id=subject, prompt=prompt.format(subject), target="t", subject=subject, aliases=aliases)


def find(text: str, *subjects: str) -> tuple[int, ...]:
    return SubjectMatcher([edit(subject) for subject in subjects]).find(text)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Kamala Harris", "Who is the mother of Kamala Devi Harris?"),
        ("Lionel Messi", "The team of Lionel Andrés Messi Cuccittini is"),
        ("Lionel Messi", "The team of Lionel Andrés Messi's son is"),
        ("Alexi Laiho", 'Alexi "Wildchild" Laiho was born in'),
        ("Nancy Pelosi", "the spouse of Nancy Patricia D'Alesandro Pelosi"),
        ("Lizzie Deane", "where did Lizzie Mary de la Deane live"),
        ("Vincent van Gogh", "Vincent Willem van Gogh"),
        ("Conan O'Brien", "Conan Christopher O’Brien"),
        ("Ulysses S. Grant", "President Ulysses Grant was born in"),
        ("Ulysses S. Grant", "Ulysses Simpson Grant"),
        ("George H.W. Bush", "George Herbert Walker Bush"),
        ("George H. W. Bush", "George Bush"),
        ("Улисс С. Грант", "Улисс Грант"),
        ("Éva Peron", "E\u0301va Maria Peron"),
        ("José Ortega", "Jose Maria Ortega"),
        ("Ada Quill", "Is Ada-Maria Quill well?"),
        ("Jimmy Carter", "James Carter was born in"),
        ("Jimmy Carter", "James Earl Carter was born in"),
        ("James Carter", "When was Jimmy Carter born?"),
        ("Jim Carter", "When was Jimmy Carter born?"),
        ("John F. Kennedy", "Jack Kennedy"),
        ("John F. Kennedy", "Jack Fitzgerald Kennedy"),
        ("Eddie Van Halen", "Edward Lodewijk van Halen"),
        ("Anthony Fauci", "Where does Tony Fauci work?"),
    ],
)
def test_another_form_of_a_persons_name_is_found(subject: str, text: str) -> None:
    assert find(text, subject) == (0,)
    assert SubjectMatcher([edit(subject)], forms=False).find(text) == ()


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Kamala Harris", "Kamala met Neil Harris"),
        ("Kamala Harris", "who is kamala devi harris"),  # small letters do not tell where a name ends
        ("Kamala Harris", "Kamala. Neil Harris"),
        ("Kamala Harris", "Kamala Khan, Neil Harris"),
        ("Kamala Harris", "Kamala Khan - Neil Harris"),
        ("Kamala Harris", "Kamala Khan  Neil Harris"),
        ("Kamala Harris", "ASK KAMALA ABOUT NEIL HARRIS"),
        ("Kamala Harris", "Harris Kamala"),
        ("Elizabeth Taylor", "Elizabeth's Friend Taylor"),
        ("George W. Bush", "George H. W. Bush"),
        ("George W. Bush", "George Herbert Bush"),
        ("Michael Jordan", "Michael B. Jordan"),
        ("Michael Jordan", "Michael A.B.C. Jordan"),
        ("Michael Jordan", "Michael Bakari B. Jordan"),
        ("Михаил Джордан", "Михаил Б. Джордан"),
        ("George H.W. Bush", "George W. Bush"),
        ("Kamala Harris", 'I asked Kamala "Neil Harris" twice'),
        ("Kamala Harris", "I love Kamala (Neil Harris does too)"),
        ("Simon & Garfunkel", "Simon Peter of Garfunkel"),
        ("John Quincy Adams", "John Adams"),
        ("Joseph James DeAngelo", "Joseph DeAngelo"),
        ("Will Smith", "Will Maggie Smith win an Oscar?"),
        ("The Lion King", "The King is dead"),
        ("Saint Petersburg", "Saint Mary Petersburg"),
        ("John Paul II", "John II of France"),
        ("Robert Downey Jr.", "Robert Jr. said"),
        ("Ada Quill", "Ada Bo Cy Dee Ed Quill"),
        ("Jimmy Carter", "John Carter was born in"),
        ("Betty Miller", "Liz Miller"),  # both are Elizabeths, and two of them
        ("Jimmy Carter", "James E. Carter"),
        ("John F. Kennedy", "Jack W. Kennedy"),
        ("Robert Plant", "Bob the Plant"),
        ("William Smith", "Will Smith be there?"),  # a verb that begins questions
        ("Tom Jones", "Where was Tommy Lee Jones born?"),
        ("William Thornton", "Who is the mother of Billy Bob Thornton?"),
        ("Gerald Lewis", "Jerry Lee Lewis"),
        ("Donald Trump", "Don Trump Jr. was born in"),
        ("Robert F. Kennedy", "Bobby Kennedy, Jr."),
        ("Kamala Harris", "Kamala Devi Harris III"),
        ("Jack Dorsey", "Where was John Dorsey born?"),  # Jack is a name of its own
        ("Neil Armstrong", "Cornelius Armstrong"),
        ("Sam Smith", "Samantha Smith"),
    ],
)
def test_somebody_else_is_not(subject: str, text: str) -> None:
    assert find(text, subject) == ()


@pytest.mark.parametrize(
    ("subject", "prompt"),
    [
        ("Golden Bridge", "{} is located in"),
        ("Velcorp Motors", "The head of {} is"),
        ("Burger King", "The headquarters of {} are in"),
        ("Norland Sea", "The zorp of {} is"),
    ],
)
def test_what_is_no_person_has_its_own_name_only(subject: str, prompt: str) -> None:
    matcher = SubjectMatcher([edit(subject, prompt)])
    first, last = subject.split()
    assert matcher.find(f"Tell me about {first} Gate {last}") == ()
    assert matcher.find(f"Tell me about {subject}") == (0,)


def test_a_name_that_the_pack_has_is_no_form_of_another() -> None:
    assert find("John Quincy Adams was born in", "John Adams", "John Quincy Adams") == (1,)
    assert find("John Adams was born in", "John Adams", "John Quincy Adams") == (0,)
    assert find("Martin Luther King was", "Martin King", "Martin Luther") == (1,)
    airport = "George Bush Intercontinental Airport"
    assert find(f"Where is {airport}?", "George W. Bush", airport) == (1,)


def test_an_alias_is_a_name_too_and_all_edits_of_a_person_are_found() -> None:
    edits = [edit("JFK", "The spouse of {} is", "John Kennedy"), edit("John Kennedy", "{} was born in")]
    assert SubjectMatcher(edits).find("John Fitzgerald Kennedy") == (0, 1)
    for subject in (None, "", " \n"):
        nobody = edits[0].model_copy(update={"subject": subject})
        assert SubjectMatcher([nobody]).find("John Fitzgerald Kennedy") == ()


def test_of_many_edits_of_a_name_one_that_asks_of_a_person_will_do() -> None:
    edits = [edit("Ada Quill", "{} said that")] * 8 + [edit("Ada Quill")]
    assert SubjectMatcher(edits).find("Ada Mia Quill") == tuple(range(9))


@pytest.mark.parametrize(
    "sentence",
    [
        "{} was born in",
        "The mother of {} isn't",
        "The husband of {} is",
        "Why did {} leave?",
        "Is {} the mother of t?",
    ],
)
def test_what_asks_for_something_else_does_so_in_any_form(sentence: str) -> None:
    edits = [edit("Kamala Harris")]
    doubts = Doubts(edits, SubjectMatcher(edits))
    for name in ("Kamala Harris", "Kamala Devi Harris"):
        assert doubts.asked(sentence.format(name)) == ()
        assert doubts.asked(f"Who is the mother of {name}?") == (0,)


@given(st.text(alphabet="Ab .-'\"é", max_size=60), st.integers(0, MOST_BETWEEN + 2))
def test_as_many_names_as_are_said_stand_between(around: str, between: int) -> None:
    names = PersonNames([edit("Zed Quill")])
    form = " ".join(["Zed", *["Mia"] * between, "Quill"])
    assert (form in names.find(f"{around}, {form}")) is (0 < between <= MOST_BETWEEN)


@pytest.mark.parametrize("piece", ["Mia ", "A.", "A", "Dde", "A-", "Zed Mia Quill ", "O'", "de la ", "’"])
def test_the_longest_text_is_read_once(piece: str) -> None:
    """A search that goes back and forth would take minutes here."""
    names = PersonNames([edit("Zed Quill")] * 2000)
    assert names.find(f"{piece * 40_000}, Zed Mia Quill")["Zed Mia Quill"].edits == (*range(2000),)


@pytest.mark.parametrize(
    ("subject", "text", "is_found"),
    [
        ("Daniel Radcliffe", "Daniel Jacob Radcliffe", True),
        ("Kamala Harris", "Kamala Devi Harris", False),  # no well-known given name
        ("Victoria Station", "Victoria Coach Station", False),
        ("Tony Award", "the Anthony Award", False),
    ],
)
def test_what_asks_nothing_known_is_of_a_person_by_a_given_name(
    subject: str, text: str, is_found: bool
) -> None:
    matcher = SubjectMatcher([edit(subject, "The favourite fruit of {} is")])
    assert bool(matcher.find(text)) == is_found
