"""Which edits a text names: the subjects and aliases of a pack, looked for in one pass.

A pure function of text, so that every process that holds the same edits answers the same.

Text and names are folded alike: case, accents and punctuation go, and what is left is words. A name is
found where its words stand in the text, all but the last one whole. The last word may go on in the text,
for suffixes are glued to names ("France's", "Lumoras", "Velcorp-CEO", "Berlins", "Ankarada"), unless it
is shorter than `_SHORT` letters or ends in a digit: "Louis X" is not meant by "Louis XIV", nor "Boeing 74"
by "Boeing 747". Each sign of a script that is written without spaces counts as a word, so that names in it
are found anywhere. Where several names fit, the longest counts: "New York City" does not name "New York".

Not found: names behind a glued prefix (Arabic, Hebrew), other spellings (ue for ü), and pronouns.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ahocorasick_rs import BytesAhoCorasick, MatchKind

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord

#: A last word of fewer letters must stand whole in the text; a Korean syllable counts its letters.
_SHORT = 4
#: A name with one of these before it is found without it too, if `_TELLING` letters are left: "the Eiffel
#: Tower", but not "The Who".
_ARTICLES = (b"the", b"a", b"an")
_TELLING = 5
#: Letters that Unicode does not take apart, as people type them without the right keys; and letters used
#: as apostrophes.
_ALIKE = {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
_ALIKE |= dict.fromkeys("ʹʻʼʽˈ", " ")
#: Beginnings of the Unicode names of signs that stand without spaces between words.
_WITHOUT_SPACES = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


class SubjectMatcher:
    """Finds the edits whose subject or alias a text names.

    Args:
        edits: The pack's, in its order.

    Attributes:
        unnamed: Indices of the edits that no text can name: no subject and no alias, or none of them
            with a letter or a digit.
    """

    def __init__(self, edits: Sequence[EditRecord]) -> None:
        edits_of: dict[bytes, set[int]] = defaultdict(set)
        for index, edit in enumerate(edits):
            for name in (edit.subject or "", *edit.aliases):
                pattern = _pattern(name)
                if pattern:
                    edits_of[pattern].add(index)
        named = set[int]().union(*edits_of.values())
        self.unnamed = tuple(index for index in range(len(edits)) if index not in named)
        self._edits_of = [tuple(sorted(indices)) for indices in edits_of.values()]
        self._automaton = BytesAhoCorasick(list(edits_of), MatchKind.LeftmostLongest)

    def find(self, text: str) -> tuple[int, ...]:
        """Indices of the edits that the text names, ascending."""
        matches = self._automaton.find_matches_as_indexes(b" %b " % _GAP.join(_words(text)))
        return tuple(sorted({index for pattern, _, _ in matches for index in self._edits_of[pattern]}))


#: Between two words stand two spaces: a name may end with the one and the next begin with the other.
_GAP = b"  "


def _pattern(name: str) -> bytes:
    """What the automaton looks for; empty for a name without a letter or a digit."""
    words = _words(name)
    if words and words[0] in _ARTICLES and sum(map(_num_letters, words[1:])) >= _TELLING:
        del words[0]
    if not words:
        return b""
    whole = _num_letters(words[-1]) < _SHORT or words[-1].decode()[-1].isdigit()
    return b" " + _GAP.join(words) + (b" " if whole else b"")


def same_name(one: str, other: str) -> bool:
    """Whether two names are one, folded as the texts are; names without a letter or a digit are none."""
    pattern = _pattern(one)
    return bool(pattern) and pattern == _pattern(other)


def _num_letters(word: bytes) -> int:
    return len(unicodedata.normalize("NFKD", word.decode()))


def _words(text: str) -> list[bytes]:
    """The folded words of a text, UTF-8."""
    if text.isascii():
        return text.encode().translate(_ASCII).split()
    # Composed first: the folding looks at one character at a time. Lone surrogates are not text.
    return unicodedata.normalize("NFKC", text).translate(_FOLDING).encode(errors="replace").split()


class _Folding(dict[int, str]):
    """What each character becomes, worked out when it is first met. For :meth:`str.translate`."""

    def __missing__(self, code: int) -> str:
        parts = unicodedata.normalize("NFKD", chr(code)).casefold()
        parts = unicodedata.normalize("NFKD", "".join(_ALIKE.get(part, part) for part in parts))
        # Together again: one syllable's letters may be the beginning of another's (Hangul).
        kept = unicodedata.normalize("NFC", "".join(part for part in parts if not _is_unwritten(part)))
        self[code] = "".join(map(_in_words, kept))
        return self[code]


def _is_unwritten(part: str) -> bool:
    """Signs without a shape, and accents: marks above, below and through a letter, vowel points.

    Vowel signs (Devanagari, Thai) and the marks of voiced kana are written by everyone: other classes.
    """
    place = unicodedata.combining(part)
    return place == 1 or 10 <= place <= 36 or place >= 200 or unicodedata.category(part) == "Cf"


def _in_words(part: str) -> str:
    """A space for what is no part of a word, spaces around a sign that is a word alone."""
    if unicodedata.category(part)[0] not in "LNM":
        return " "
    return f" {part} " if unicodedata.name(part, "").startswith(_WITHOUT_SPACES) else part


_FOLDING = _Folding()
_ASCII = bytes(ord(_FOLDING[code]) for code in range(128)) + bytes(128)
