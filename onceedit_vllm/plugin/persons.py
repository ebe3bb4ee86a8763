"""Persons whom a text names otherwise than their edit: "Kamala Devi Harris", "Ulysses Grant", "Jim Carter".

First and last name must be the edit's, the first also as another form of the same (James, Jim), with nothing
or capitalised words between them: middle names where the edit has none; none, or the names themselves, where
it has initials. An initial that the edit does not have makes it somebody else (Michael B. Jordan), and so do
middle names behind a short form (Tommy Lee Jones is no Tom Jones) and "Jr." behind the name. Of other
subjects such a name is another's (Golden Gate Bridge, Golden Bridge), so the edit must ask what is asked of
persons, or ask what is not known and name somebody by a well-known given name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import regex

from onceedit_vllm.plugin.folding import words_of
from onceedit_vllm.plugin.forms import Form
from onceedit_vllm.wordings.frames import find_subject, to_frame
from onceedit_vllm.wordings.given_names import is_full_given_name, is_given_name, other_given_names
from onceedit_vllm.wordings.relations import find_relation, find_type

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord

#: Middle names, at most; more capitals in a row are a headline or two people.
MOST_BETWEEN = 3
#: Forms in one text, at most: more are no question.
_MOST_FORMS = 16
#: Edits of one name that are looked at to tell whether it is a person's: a third of a millisecond each, once.
_LOOKED_AT = 64
PARTICLES = ("de", "van", "von", "der", "den", "da", "di", "la", "bin", "al", "el", "du", "ten", "dos")
#: A word of a name: capitalised, not all capitals; initials; or what stands small in names.
_WORD = regex.compile(
    r"(?<![\p{L}\p{M}\d])(?:(?:[OD]['’])?\p{Lu}\p{M}*+\p{Ll}[\p{L}\p{M}]*+|(?:\p{Lu}\.)++"
    rf"|\p{{Lu}}(?![\p{{L}}\p{{M}}\d'’])|(?:{'|'.join(PARTICLES)})(?![\p{{L}}\p{{M}}\d]))"
)
#: One capital, or capitals with stops.
_INITIALS = regex.compile(r"\p{Lu}\p{M}*|(?:\p{Lu}\p{M}*\.)+")
#: What may stand between two words of a name; quotation marks are for nicknames.
_GAPS = frozenset((" ", "-", ' "', '" ', " “", "” "))
#: First words by which nobody is told: articles and titles, and verbs that begin questions.
_NO_FIRST = frozenset((
    "the", "a", "an", "king", "queen", "prince", "princess", "saint", "st", "captain", "sir", "dame", "lord",
    "lady", "dr", "mr", "mrs", "ms", "prof", "professor", "president", "pope", "emperor", "general", "will",
    "may",
))  # fmt: skip
#: Last words that are none: of kings and of sons.
_NO_LAST = regex.compile(r"[ivx]+|jr|sr|..?")
#: Behind a name it makes another: a son's, or a longer one.
_ANOTHER = regex.compile(r",? (?:Jr|Sr|Junior|Senior|I{2,3}|IV|V|the (?:Second|Third|Fourth|Fifth))\b|-\w")

#: Last words of what is called after a person.
_THINGS = frozenset((
    "airport", "award", "bridge", "building", "center", "centre", "college", "cup", "foundation", "garden",
    "gardens", "hospital", "institute", "island", "line", "medal", "memorial", "museum", "park", "prize",
    "river", "school", "square", "stadium", "station", "street", "theatre", "theater", "tower", "trophy",
    "university",
))  # fmt: skip

#: Words between first and last name that tell people apart.
Between = tuple[str, ...]


class _Own(NamedTuple):
    """What an edit has between first and last name.

    `otherwise`: the first here is another form of its own; `is_short`: a short one.
    """

    between: Between
    otherwise: bool
    is_short: bool


class _Word(NamedTuple):
    """A word of a text, folded, and where it stands; `follows` the one before it in one name."""

    folded: str
    start: int
    end: int
    follows: bool


class PersonNames:
    """Finds persons by other forms of their names.

    Args:
        edits: The pack's, in its order.

    Attributes:
        firsts: Folded words of which a text has one, if it has any form.
    """

    def __init__(self, edits: Sequence[EditRecord]) -> None:
        self.firsts: set[bytes] = set()
        self._edits = edits
        self._names: dict[str, dict[str, dict[_Own, list[int]]]] = {}
        self._are_persons: dict[int, bool] = {}
        for index, edit in enumerate(edits):
            for name in dict.fromkeys((edit.subject or "", *edit.aliases)):
                self._add(name, index)

    def _add(self, name: str, index: int) -> None:
        """Keep a name that has other forms."""
        words = [word for part in name.replace("-", " ").split() if (word := _fold(part))]
        if len(words) < 2 or words[0] in _NO_FIRST or _NO_LAST.fullmatch(words[-1]):
            return
        between = _between(words[1:-1])
        if not all(map(_is_initial, between)):
            return
        self.firsts.add(words_of(name)[0])
        others = other_given_names(words[0]) - _NO_FIRST
        self.firsts.update(other.encode() for other in others)
        for first in (words[0], *others):
            names = self._names.setdefault(first, {}).setdefault(words[-1], {})
            otherwise = first != words[0]
            own = _Own(between, otherwise, otherwise and not is_full_given_name(first))
            names.setdefault(own, []).append(index)

    def find(self, text: str) -> dict[str, Form]:
        """The forms in a text, as they are written there."""
        words = list(_words(text))
        found: dict[str, Form] = {}
        for first, last in self._pairs(words):
            form = text[words[first].start : words[last].end]
            if form in found or not _is_balanced(form) or _ANOTHER.match(text, words[last].end):
                continue
            names = self._names[words[first].folded][words[last].folded]
            between = _between([word.folded for word in words[first + 1 : last]])
            meant = [edits for own, edits in names.items() if _is_form(between, own)]
            edits = [edit for edits in meant if self._is_persons(edits) for edit in edits]
            if edits:
                found[form] = Form(self._edits[edits[0]].subject or form, tuple(edits))
            if len(found) == _MOST_FORMS:
                break
        return found

    def _pairs(self, words: Sequence[_Word]) -> Iterator[tuple[int, int]]:
        """Places of two words that are the first and the last of a name, and what is between them is near."""
        for first, word in enumerate(words):
            lasts = self._names.get(word.folded)
            for last in range(first + 1, min(len(words), first + MOST_BETWEEN + 3)) if lasts else ():
                if not words[last].follows:
                    break
                if lasts and words[last].folded in lasts:
                    yield first, last

    def _is_persons(self, edits: Sequence[int]) -> bool:
        """Whether the name of these edits is a person's: any of them asks what is asked of persons."""
        known = self._are_persons.get(edits[0])
        if known is None:
            known = any(_asks_of_a_person(self._edits[index]) for index in edits[:_LOOKED_AT])
            self._are_persons[edits[0]] = known
        return known


@lru_cache(maxsize=4096)  # a text is looked at sentence by sentence
def _fold(word: str) -> str:
    """Folded; initials keep their stops, so that they are told from short names."""
    letters = [part.decode() for part in words_of(word)]
    return ".".join(letters) + "." if _INITIALS.fullmatch(word) else "".join(letters)


def _is_initial(word: str) -> bool:
    return word.endswith(".")


def _words(text: str) -> Iterator[_Word]:
    end = -1
    for match in _WORD.finditer(text):
        follows = end >= 0 and text[end : match.start()] in _GAPS
        yield _Word(_fold(match[0]), match.start(), match.end(), follows)
        end = match.end()


def _is_balanced(form: str) -> bool:
    """A quotation that begins in a name ends in it: I asked Kamala "Neil Harris"."""
    return form.count('"') % 2 == 0 and form.count("“") == form.count("”")


def _between(words: Sequence[str]) -> Between:
    """The names, and the initials one by one, without particles."""
    parts = (part for word in words for part in (_single(word) if _is_initial(word) else (word,)))
    return tuple(part for part in parts if part not in PARTICLES)


def _single(initials: str) -> Iterator[str]:
    return (f"{letter}." for letter in initials.split(".") if letter)


def _is_form(found: Between, own: _Own) -> bool:
    """Whether words between first and last name make another form of a name that has its own there."""
    if found == own.between:
        return own.otherwise
    if not own.between:
        return not own.is_short and len(found) <= MOST_BETWEEN and not any(map(_is_initial, found))
    pairs = zip(found, own.between, strict=False)
    return not found or (
        len(found) == len(own.between) and all(word.startswith(initial[0]) for word, initial in pairs)
    )


def _asks_of_a_person(edit: EditRecord) -> bool:
    subject = (edit.subject or "").strip()
    if not subject or find_type(subject) not in (None, "person"):
        return False
    frame = to_frame(edit.prompt, find_subject(edit))
    relation = find_relation(frame) if frame else None
    if relation is None:
        words = [_fold(word) for word in subject.split()]
        return is_given_name(words[0]) and words[-1] not in _THINGS
    return relation.subject == "person"
