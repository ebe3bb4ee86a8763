"""Persons whom a text names more fully than their edit, or less: "Kamala Devi Harris", "Ulysses Grant".

First and last name must be the edit's, in a run of capitalised words, with up to `MOST_BETWEEN` words
between them where the edit has none, or with some of those that it has. Of other subjects such a name is
another's (Golden Gate Bridge, Golden Bridge), so a subject must be a person, which its first name tells, or
what the edit asks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import regex

from onceedit_vllm.plugin.folding import words_of
from onceedit_vllm.wordings.frames import find_subject, to_frame
from onceedit_vllm.wordings.relations import find_relation, find_type

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord

MOST_BETWEEN = 3
#: Words of a name that is looked for in other forms, at most: longer ones are titles and descriptions.
_MOST_WORDS = 4
_CAPITALISED = r"(?:(?:\p{Lu}\.)+|\p{Lu}[\p{L}\p{M}'’]*)"
#: A run of capitalised words, nicknames in quotation marks among them, and what stands small in names.
_RUN = regex.compile(
    rf"""{_CAPITALISED}(?:[ \-]+(?:["“(]?{_CAPITALISED}["”)]?"""
    r"""|de|van|von|der|da|di|la|bin|al|el|du|ten|dos))+"""
)


class _Name(NamedTuple):
    """One edit's name; `between` stands between its first and its last word."""

    edit: int
    between: tuple[bytes, ...]


class PersonNames:
    """Finds persons by other forms of their names.

    Args:
        edits: The pack's, in its order.
    """

    def __init__(self, edits: Sequence[EditRecord]) -> None:
        self._edits = edits
        self._by_ends: dict[tuple[bytes, bytes], list[_Name]] = defaultdict(list)
        self._is_person = cache(lambda index: _is_person(edits[index]))  # when it is first asked
        for index, edit in enumerate(edits):
            for name in (edit.subject or "", *edit.aliases):
                words = words_of(name)
                if 2 <= len(words) <= _MOST_WORDS and name[:1].isupper():
                    self._by_ends[words[0], words[-1]].append(_Name(index, tuple(words[1:-1])))

    def find(self, text: str) -> set[int]:
        """Indices of the edits whose person the text names in another form."""
        return {
            name.edit
            for words in _runs(text)
            for first, last in combinations(range(len(words)), 2)
            for name in self._by_ends.get((words[first], words[last]), ())
            if _is_form(words[first + 1 : last], name.between) and self._is_person(name.edit)
        }


def _runs(text: str) -> Iterator[list[bytes]]:
    """The words of each run of capitalised words, a long one in overlapping parts."""
    most = MOST_BETWEEN + 2
    for run in _RUN.finditer(text):
        words = words_of(run[0])
        yield from (words[start : start + most] for start in range(max(1, len(words) - most + 1)))


def _is_form(found: Sequence[bytes], own: Sequence[bytes]) -> bool:
    """Whether some words between first and last name make another form of a name that has its own there."""
    return bool(found) if not own else len(found) < len(own) and set(found) <= set(own)


def _is_person(edit: EditRecord) -> bool:
    kind = find_type(edit.subject or "")
    if kind is not None:
        return kind == "person"
    frame = to_frame(edit.prompt, find_subject(edit))
    relation = find_relation(frame) if frame else None
    return relation is not None and relation.subject == "person"
