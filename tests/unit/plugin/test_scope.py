"""Which edits a text names, against a plain search over words."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.scope import SubjectMatcher


def record(subject: str | None, *aliases: str) -> EditRecord:
    return EditRecord(id="x", prompt="p", target="t", subject=subject, aliases=aliases)


def matcher(*subjects: str | None, forms: bool = True) -> SubjectMatcher:
    return SubjectMatcher([record(subject) for subject in subjects], forms=forms)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("France", "What is the capital of FRANCE?"),
        ("France", "France's capital"),
        ("France", "«France», dit-il"),
        ("Lumora", "All Lumoras are gone"),
        ("Velcorp", "the Velcorp-CEO"),
        ("Berlin", "Berlins Straßen"),
        ("Ankara", "Ankarada ne var?"),
        ("Łódź", "a train to Lodz"),
        ("Søren Straße", "soren STRASSE"),
        ("İzmir", "izmir"),
        ("Diyarbakır", "DIYARBAKIR"),
        ("José", "Jose\u0301"),
        ("Jose\u0301", "josé"),
        ("fiancée", "ﬁancée"),
        ("O'Neill", "by O’Neill."),
        ("the Eiffel Tower", "Where is Eiffel tower?"),
        ("Eiffel Tower", "Where is the Eiffel   Tower?"),
        ("The Who", "songs of the who"),
        ("AC/DC", "ac dc"),
        ("Ada Lee", "Ada Lee's book"),
        ("Boeing 747", "a Boeing 747-400"),
        ("東京", "私は東京都に住む"),
        ("Velcorp", "在Velcorp工作"),
        ("ガンダム", "ｶﾞﾝﾀﾞﾑを見る"),
        ("서울", "서울은 크다"),
        ("กรุงเทพ", "ไปกรุงเทพมหานคร"),
        ("दिल्ली", "दिल्ली में"),
        ("co\u00adoperation", "cooperation"),
    ],
)
def test_a_name_is_found(subject: str, text: str) -> None:
    assert matcher(subject).find(text) == (0,)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("France", "Airfrance flies"),
        ("Rome", "chromed steel"),
        ("Louis X", "Louis XIV was king"),
        ("Ada Lee", "Ada Leeds"),
        ("Boeing 74", "a Boeing 747"),
        ("The Who", "who wrote it"),
        ("New York", "new and York"),
        ("New York", "News York"),
        ("か", "が"),
        ("가나", "각나"),
        ("Eiffel Tower", ""),
    ],
)
def test_what_only_looks_like_a_name_is_not(subject: str, text: str) -> None:
    assert matcher(subject).find(text) == ()


def test_the_longest_name_counts() -> None:
    names = matcher("New York", "New York City", "City Hall")
    assert names.find("In New York City Hall") == (1,)
    assert names.find("In New York, at City Hall") == (0, 2)


def test_names_side_by_side_are_both_found() -> None:
    assert matcher("UN", "Ada Lee", "Oslo").find("UN Ada Lee Oslo") == (0, 1, 2)


def test_one_name_of_several_edits_and_several_names_of_one() -> None:
    edits = [record("Paris", "City of Light"), record("Rome"), record("PARIS")]
    assert SubjectMatcher(edits).find("the city of light") == (0,)
    assert SubjectMatcher(edits).find("Paris, again Paris") == (0, 2)


def test_edits_that_no_text_can_name_are_told() -> None:
    edits = [record(None), record("Rome"), record("?!"), record(None, "Oslo"), record("", "—")]
    assert SubjectMatcher(edits).unnamed == (0, 2, 4)
    assert SubjectMatcher([]).find("anything") == ()


@settings(deadline=None)
@given(st.text())
def test_any_text_is_taken(text: str) -> None:
    found = SubjectMatcher([record(text)])
    assert found.find(f"so {text} it is") == (() if found.unnamed else (0,))


def test_half_a_surrogate_harms_nothing() -> None:
    assert matcher("Rome").find("\ud800 Rome é") == (0,)


PARTS = [
    "a",
    "an",
    "the",
    "new",
    "york",
    "é",
    "e",
    "straße",
    "lum",
    "ora",
    "s",
    "x1",
    "12",
    "京",
    "서울",
    "Ö",
]
GLUE = ["", " ", " ", "-", "'", " the "]
phrases = st.lists(st.tuples(st.sampled_from(PARTS), st.sampled_from(GLUE)), min_size=1, max_size=5).map(
    lambda pairs: "".join(part + glue for part, glue in pairs)
)


@settings(max_examples=400, deadline=None)
@given(st.lists(phrases, max_size=5), st.lists(phrases, max_size=6).map(" ".join))
def test_it_finds_what_a_plain_search_finds(subjects: list[str], text: str) -> None:
    assert matcher(*subjects, forms=False).find(text) == plain_search(subjects, text)


def plain_search(subjects: list[str], text: str) -> tuple[int, ...]:
    """From each word on, the longest name that stands there; then on behind it."""
    names = [plain_name(subject) for subject in subjects]
    words, found, at = plain_words(text), set[int](), 0
    while at < len(words):
        here = [name for name in names if name and stands(name, words[at:])]
        longest = max(here, key=lambda name: (len(name), len(name[-1]), is_whole(name)), default=None)
        found |= {index for index, name in enumerate(names) if longest is not None and name == longest}
        at += 1 if longest is None else len(longest)
    return tuple(sorted(found))


def stands(name: list[str], words: list[str]) -> bool:
    if len(words) < len(name) or words[: len(name) - 1] != name[:-1]:
        return False
    last = words[len(name) - 1]
    return last == name[-1] if is_whole(name) else last.startswith(name[-1])


def is_whole(name: list[str]) -> bool:
    return len(unicodedata.normalize("NFKD", name[-1])) < 4 or name[-1][-1].isdigit()


def plain_name(subject: str) -> list[str]:
    words = plain_words(subject)
    has_article = words[:1] in (["a"], ["an"], ["the"])
    is_telling = len(unicodedata.normalize("NFKD", "".join(words[1:]))) >= 5
    return words[1:] if has_article and is_telling else words


def plain_words(text: str) -> list[str]:
    """For Latin letters, Hangul and one Chinese character."""
    marks = [c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c)]
    text = unicodedata.normalize("NFC", "".join(marks)).replace("京", " 京 ")
    return "".join(c if c.isalnum() else " " for c in text).split()


SENTENCES = [
    "France is far. ",
    "Is it New York City? ",
    "Ada Marie Quill? ",
    "the 2009 Cup of Norland ",
    "It is.",
]


@given(st.lists(st.sampled_from(SENTENCES), max_size=6))
def test_parts_of_a_text_name_what_they_name_alone(parts: list[str]) -> None:
    """Looked into in one pass, and a name does not go on from one part into the next."""
    edits = [
        EditRecord(id="a", prompt="The capital of France is", target="t", subject="France"),
        EditRecord(id="b", prompt="Ada Quill was born in", target="t", subject="Ada Quill"),
        EditRecord(id="c", prompt="Who won the Norland Cup 2009?", target="t", subject="Norland Cup 2009"),
        EditRecord(id="d", prompt="New York is", target="t", subject="New York"),
        EditRecord(id="e", prompt="City Ada is", target="t", subject="City Ada"),
    ]
    finder = SubjectMatcher(edits)
    forms = finder.look("".join(parts)).forms
    assert [tuple(sorted(named)) for named in finder.look_into(parts, forms)] == list(map(finder.find, parts))
    assert [finder.find(part, forms) for part in parts] == list(map(finder.find, parts))
