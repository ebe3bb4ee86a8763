"""Which edits a text names: the subjects and aliases of a pack, looked for in one pass.

A pure function of text, so that every process that holds the same edits answers the same.

Text and names are folded alike: case, accents and punctuation go, and what is left is words. A name is
found where its words stand in the text, all but the last one whole. The last word may go on in the text,
for suffixes are glued to names ("France's", "Lumoras", "Velcorp-CEO", "Berlins", "Ankarada"), unless it
is shorter than `_SHORT` letters or ends in a digit: "Louis X" is not meant by "Louis XIV", nor "Boeing 74"
by "Boeing 747". Each sign of a script that is written without spaces counts as a word, so that names in it
are found anywhere. Where several names fit, the longest counts: "New York City" does not name "New York".

Names are also found by other spellings ("Washington DC"), see :mod:`onceedit_vllm.plugin.spellings`, persons
by other forms of their names, see :mod:`onceedit_vllm.plugin.persons`, and long names by their words in any
order, see :mod:`onceedit_vllm.plugin.scattered`.

Not found: names behind a glued prefix (Arabic, Hebrew), other spellings (ue for ü), and pronouns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from onceedit_vllm.plugin.folding import num_letters, words_of
from onceedit_vllm.plugin.forms import Form, Forms, is_in, replace_forms
from onceedit_vllm.plugin.persons import PersonNames
from onceedit_vllm.plugin.scattered import ScatteredNames
from onceedit_vllm.plugin.spellings import OtherSpellings, is_spelling_of
from onceedit_vllm.wordings.names import replace_name

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord

#: A last word of fewer letters must stand whole in the text; a Korean syllable counts its letters.
_SHORT = 4
#: A name with one of these before it is found without it too, if `_TELLING` letters are left: "the Eiffel
#: Tower", but not "The Who".
_ARTICLES = (b"the", b"a", b"an")
_TELLING = 5


class Named(NamedTuple):
    """What a text names: indices of edits, ascending, and the other forms and spellings of names in it."""

    edits: tuple[int, ...]
    forms: Forms


class SubjectMatcher:
    """Finds the edits whose subject or alias a text names.

    Args:
        edits: The pack's, in its order.
        forms: Whether names are also found by other spellings, persons by other forms of their names, and
            long names by their words alone.

    Attributes:
        unnamed: Indices of the edits that no text can name: no subject and no alias, or none of them
            with a letter or a digit.
    """

    def __init__(self, edits: Sequence[EditRecord], *, forms: bool = True) -> None:
        edits_of: dict[bytes, set[int]] = defaultdict(set)
        written: dict[bytes, str] = {}
        for index, edit in enumerate(edits):
            for name in (edit.subject or "", *edit.aliases):
                pattern = _pattern(name)
                if pattern:
                    edits_of[pattern].add(index)
                    written.setdefault(pattern, name)
        named = set[int]().union(*edits_of.values())
        self.unnamed = tuple(index for index in range(len(edits)) if index not in named)
        self._edits_of = [tuple(sorted(indices)) for indices in edits_of.values()]
        self._written = list(written.values())
        self._patterns = list(edits_of)
        self._automaton = BytesAhoCorasick(self._patterns, MatchKind.LeftmostLongest)
        self._persons = PersonNames(edits if forms else ())
        self._spellings = OtherSpellings(edits if forms else ())
        self._scattered = ScatteredNames(edits if forms else ())

    def find(self, text: str, forms: Forms | None = None) -> tuple[int, ...]:
        """Indices of the edits that the text names, ascending; see :meth:`look`."""
        return self.look(text, forms).edits

    def look(self, text: str, forms: Forms | None = None) -> Named:
        """What a text names.

        A person's form that holds a name of the pack's, or stands in one, is none. Of names and other
        spellings the longest counts.

        Args:
            text: Any.
            forms: Of a text that this one is a part of: then no others are looked for, which takes ten
                times as long as all the rest.
        """
        words = words_of(text)
        forms = self._forms(text, words) if forms is None else _in(forms, text)
        if forms:
            text = self._without(text, forms)
            words = words_of(text)
        named = self._named(text, words, self._matches(words))
        return Named(tuple(sorted(named.union(*(form.edits for form in forms.values())))), forms)

    def look_into(self, parts: Sequence[str], forms: Forms) -> list[set[int]]:
        """Indices of the edits that each of some parts of a text names, in one pass.

        Args:
            parts: Sentences, say.
            forms: Of the text.
        """
        told = [_in(forms, part) for part in parts]
        rests = list(map(self._without, parts, told))
        words = list(map(words_of, rests))
        lines = list(map(_spaced, words))
        starts = list(accumulate((len(line) + len(_BREAK) for line in lines), initial=0))
        whole: list[list[int]] = [[] for _ in parts]
        for pattern, start, _ in self._automaton.find_matches_as_indexes(_BREAK.join(lines)):
            whole[bisect_right(starts, start) - 1].append(pattern)
        return [
            self._named(rest, own, names).union(*(form.edits for form in said.values()))
            for rest, own, names, said in zip(rests, words, whole, told, strict=True)
        ]

    def _named(self, text: str, words: Sequence[bytes], whole: Sequence[int]) -> set[int]:
        """What a text names, by its words and the patterns that it has."""
        named = self._scattered.find(text, words, self._names_in)
        return named.union(*(self._edits_of[pattern] for pattern in whole))

    def _names_in(self, words: Sequence[bytes]) -> list[bytes]:
        return [self._patterns[pattern] for pattern in self._matches(words)]

    def _forms(self, text: str, words: Sequence[bytes]) -> dict[str, Form]:
        # Most texts say nobody's first name: their words, folded already, tell that in no time.
        persons = {} if self._persons.firsts.isdisjoint(words) else self._persons.find(text)
        spelled = self._spellings.find(text, words)
        if not persons and not spelled:
            return {}
        there = self._matches(words)
        names = [self._patterns[pattern] for pattern in there]
        persons = {form: own for form, own in persons.items() if not self._is_named(form, names)}
        return persons | _longest(text, spelled, [self._written[pattern] for pattern in there])

    def _without(self, text: str, forms: Forms) -> str:
        """A text without forms: what they hold is no name of its own."""
        if not forms:
            return text
        names = (self._written[pattern] for pattern in self._matches(words_of(text)))
        return replace_forms(text, {name: name for name in names} | dict.fromkeys(forms, _BORDER))

    def _is_named(self, form: str, names: Sequence[bytes]) -> bool:
        words = words_of(form)
        return any(_GAP.join(words) in name for name in names) or bool(self._matches(words))

    def _matches(self, words: Sequence[bytes]) -> list[int]:
        """Which patterns the words of a text hold."""
        found = self._automaton.find_matches_as_indexes(_spaced(words))
        return [pattern for pattern, _, _ in found]


#: Between two words stand two spaces: a name may end with the one and the next begin with the other.
_GAP = b"  "
#: Between two texts; in no word.
_BREAK = b"\n"
#: In a form's place.
_BORDER = " | "


def _spaced(words: Sequence[bytes]) -> bytes:
    return b" %b " % _GAP.join(words)


def _in(forms: Forms, text: str) -> dict[str, Form]:
    return {form: own for form, own in forms.items() if is_in(text, form)}


def _longest(text: str, spelled: Forms, names: Sequence[str]) -> dict[str, Form]:
    """The spellings that stand in a text outside of longer ones and of names of the pack's as they are."""
    kept: dict[str, Form] = {}
    for _, is_spelled, name in sorted((-len(name), name in spelled, name) for name in {*spelled, *names}):
        if is_spelled and name not in names and is_in(text, name):
            kept[name] = spelled[name]
        text = replace_name(text, name, _BORDER, any_case=not is_spelled)
    return kept


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
    """Whether two names are one, folded as the texts are, or one spelled otherwise; "" is none."""
    pattern = _pattern(one)
    same = pattern == _pattern(other) or is_spelling_of(one, other) or is_spelling_of(other, one)
    return bool(pattern) and same
