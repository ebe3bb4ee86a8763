"""Persons whom a text names otherwise than their edit: "Kamala Devi Harris", "Ulysses Grant".

First and last name must be the edit's, with nothing or capitalised words between them: middle names where
the edit has none; none, or the names themselves, where it has initials. An initial that the edit does not
have makes it somebody else (Michael B. Jordan). Of other subjects such a name is another's (Golden Gate
Bridge, Golden Bridge), so the edit must ask what is asked of persons.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import regex

from onceedit_vllm.plugin.folding import words_of
from onceedit_vllm.wordings.frames import find_subject, to_frame
from onceedit_vllm.wordings.relations import find_relation, find_type

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord

#: Middle names, at most; more capitals in a row are a headline or two people.
MOST_BETWEEN = 3
_PARTICLES = ("de", "van", "von", "der", "den", "da", "di", "la", "bin", "al", "el", "du", "ten", "dos")
#: A word of a name: capitalised, not all capitals; initials; or what stands small in names.
_WORD = regex.compile(
    r"(?<![\p{L}\p{M}\d])(?:(?:[OD]['’])?\p{Lu}\p{Ll}[\p{L}\p{M}]*+|(?:\p{Lu}\.)++|\p{Lu}(?![\p{L}\p{M}\d'’])"
    rf"|(?:{'|'.join(_PARTICLES)})(?![\p{{L}}\p{{M}}\d]))"
)
#: What may stand between two words of a name; quotation marks and brackets are for nicknames.
_GAPS = frozenset((" ", "-", ' "', '" ', " “", "” ", " (", ") "))
#: First words by which nobody is told: articles and titles, and verbs that begin questions.
_NO_FIRST = frozenset(
    b"the a an king queen prince princess saint st captain sir dame lord lady dr mr mrs ms prof professor "
    b"president pope emperor general will may".split()
)
#: Last words that are none: of kings and of sons.
_NO_LAST = regex.compile(rb"(?:[ivx]+|jr|sr|..?)")
#: Edits of one name that are looked at to tell whether it is a person's: a third of a millisecond each.
_LOOKED_AT = 8


class Form(NamedTuple):
    """One edit's person in a text, as written there."""

    edit: int
    text: str


class _Word(NamedTuple):
    """A word of a text, folded, and where it stands; `follows` the one before it in one name."""

    folded: bytes
    start: int
    end: int
    follows: bool


class PersonNames:
    """Finds persons by other forms of their names.

    Args:
        edits: The pack's, in its order.
    """

    def __init__(self, edits: Sequence[EditRecord]) -> None:
        self._edits = edits
        self._by_ends: dict[tuple[bytes, bytes], dict[tuple[bytes, ...], list[int]]] = defaultdict(dict)
        self._are_persons = cache(self._ask_of_persons)
        for index, edit in enumerate(edits):
            for name in dict.fromkeys((edit.subject or "", *edit.aliases)):
                words = [b"".join(words_of(part)) for part in name.replace("-", " ").split()]
                if len(words) > 1 and words[0] not in _NO_FIRST and not _NO_LAST.fullmatch(words[-1]):
                    found = self._by_ends[words[0], words[-1]]
                    found.setdefault(_between(words[1:-1]), []).append(index)

    def find(self, text: str) -> list[Form]:
        """The forms in a text, each once for every edit of that person."""
        words = list(_words(text))
        found: dict[str, list[int]] = {}
        for first, last in _pairs(words):
            form = text[words[first].start : words[last].end]
            names = self._by_ends.get((words[first].folded, words[last].folded))
            if names and form not in found:
                between = _between([word.folded for word in words[first + 1 : last]])
                meant = [edits for own, edits in names.items() if _is_form(between, own)]
                found[form] = [edit for edits in meant for edit in self._of_a_person(edits)]
        return [Form(edit, form) for form, edits in found.items() for edit in edits]

    def _of_a_person(self, edits: Sequence[int]) -> Sequence[int]:
        """Those of one name, if it is a person's."""
        return edits if self._are_persons(tuple(edits[:_LOOKED_AT])) else ()

    def _ask_of_persons(self, edits: tuple[int, ...]) -> bool:
        return any(_asks_of_a_person(self._edits[index]) for index in edits)


def _words(text: str) -> Iterator[_Word]:
    end = -1
    for match in _WORD.finditer(text):
        follows = end >= 0 and text[end : match.start()] in _GAPS
        yield _Word(b"".join(words_of(match[0])), match.start(), match.end(), follows)
        end = match.end()


def _pairs(words: Sequence[_Word]) -> Iterator[tuple[int, int]]:
    """Places of two words that may be the first and the last of a name."""
    for first in range(len(words)):
        for last in range(first + 1, min(len(words), first + MOST_BETWEEN + 3)):
            if not words[last].follows:
                break
            yield first, last


def _between(words: Sequence[bytes]) -> tuple[bytes, ...]:
    """What tells people apart of the words between first and last name."""
    return tuple(word for word in words if word.decode() not in _PARTICLES)


def _is_form(found: tuple[bytes, ...], own: tuple[bytes, ...]) -> bool:
    """Whether words between first and last name make another form of a name that has its own there."""
    if not own:
        return 0 < len(found) <= MOST_BETWEEN and any(len(word) > 2 for word in found)
    if found == own or any(len(word) > 1 for word in own):
        return False
    pairs = zip(found, own, strict=False)
    return not found or (len(found) == len(own) and all(word.startswith(initial) for word, initial in pairs))


def _asks_of_a_person(edit: EditRecord) -> bool:
    if not edit.subject or find_type(edit.subject) not in (None, "person"):
        return False
    frame = to_frame(edit.prompt, find_subject(edit))
    relation = find_relation(frame) if frame else None
    return relation is not None and relation.subject == "person"
