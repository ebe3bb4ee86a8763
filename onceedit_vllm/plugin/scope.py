"""Which edits a text names: the subjects and aliases of a pack, looked for in one pass.

A pure function of text, so that every process that holds the same edits answers the same.

Text and names are folded alike: case, accents and punctuation go, and what is left is words. A name is
found where its words stand in the text, all but the last one whole. The last word may go on in the text,
for suffixes are glued to names ("France's", "Lumoras", "Velcorp-CEO", "Berlins", "Ankarada"), unless it
is shorter than `_SHORT` letters or ends in a digit: "Louis X" is not meant by "Louis XIV", nor "Boeing 74"
by "Boeing 747". Each sign of a script that is written without spaces counts as a word, so that names in it
are found anywhere. Where several names fit, the longest counts: "New York City" does not name "New York".

Persons are also found by other forms of their names, see :mod:`onceedit_vllm.plugin.persons`.

Not found: names behind a glued prefix (Arabic, Hebrew), other spellings (ue for ü), and pronouns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from onceedit_vllm.plugin.folding import num_letters, words_of
from onceedit_vllm.plugin.persons import PersonNames

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord

#: A last word of fewer letters must stand whole in the text; a Korean syllable counts its letters.
_SHORT = 4
#: A name with one of these before it is found without it too, if `_TELLING` letters are left: "the Eiffel
#: Tower", but not "The Who".
_ARTICLES = (b"the", b"a", b"an")
_TELLING = 5


class SubjectMatcher:
    """Finds the edits whose subject or alias a text names.

    Args:
        edits: The pack's, in its order.
        forms: Whether persons are also found by other forms of their names.

    Attributes:
        unnamed: Indices of the edits that no text can name: no subject and no alias, or none of them
            with a letter or a digit.
    """

    def __init__(self, edits: Sequence[EditRecord], *, forms: bool = True) -> None:
        edits_of: dict[bytes, set[int]] = defaultdict(set)
        for index, edit in enumerate(edits):
            for name in (edit.subject or "", *edit.aliases):
                pattern = _pattern(name)
                if pattern:
                    edits_of[pattern].add(index)
        named = set[int]().union(*edits_of.values())
        self.unnamed = tuple(index for index in range(len(edits)) if index not in named)
        self._edits_of = [tuple(sorted(indices)) for indices in edits_of.values()]
        self._patterns = list(edits_of)
        self._automaton = BytesAhoCorasick(self._patterns, MatchKind.LeftmostLongest)
        self._persons = PersonNames(edits) if forms else None

    def find(self, text: str) -> tuple[int, ...]:
        """Indices of the edits that the text names, ascending."""
        words = words_of(text)
        named = {index for pattern in self._matches(words) for index in self._edits_of[pattern]}
        return tuple(sorted(named.union(*self._forms(text, words).values())))

    def forms(self, text: str) -> dict[str, list[int]]:
        """Other forms of persons' names in a text, as written there, with the edits of each.

        What holds a name of the pack's, or stands in one, is none.
        """
        return self._forms(text, words_of(text))

    def _forms(self, text: str, words: Sequence[bytes]) -> dict[str, list[int]]:
        # Most texts say nobody's first name: their words, folded already, tell that in no time.
        if self._persons is None or self._persons.firsts.isdisjoint(words):
            return {}
        found = self._persons.find(text)
        whole = [self._patterns[pattern] for pattern in self._matches(words)] if found else []
        return {form: edits for form, edits in found.items() if not self._is_named(form, whole)}

    def _is_named(self, form: str, whole: Sequence[bytes]) -> bool:
        words = words_of(form)
        return any(_GAP.join(words) in name for name in whole) or bool(self._matches(words))

    def _matches(self, words: Sequence[bytes]) -> list[int]:
        """Which patterns the words of a text hold."""
        found = self._automaton.find_matches_as_indexes(b" %b " % _GAP.join(words))
        return [pattern for pattern, _, _ in found]


#: Between two words stand two spaces: a name may end with the one and the next begin with the other.
_GAP = b"  "


def _pattern(name: str) -> bytes:
    """What the automaton looks for; empty for a name without a letter or a digit."""
    words = words_of(name)
    if words and words[0] in _ARTICLES and sum(map(num_letters, words[1:])) >= _TELLING:
        del words[0]
    if not words:
        return b""
    whole = num_letters(words[-1]) < _SHORT or words[-1].decode()[-1].isdigit()
    return b" " + _GAP.join(words) + (b" " if whole else b"")


def same_name(one: str, other: str) -> bool:
    """Whether two names are one, folded as the texts are; names without a letter or a digit are none."""
    pattern = _pattern(one)
    return bool(pattern) and pattern == _pattern(other)
