"""Texts and names folded alike, to words: case, accents and punctuation go.

Each sign of a script that is written without spaces is a word.
"""

from __future__ import annotations

import unicodedata

#: Letters that Unicode does not take apart, as people type them without the right keys; and letters used
#: as apostrophes.
_ALIKE = {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
_ALIKE |= dict.fromkeys("ʹʻʼʽˈ", " ")
#: Beginnings of the Unicode names of signs that stand without spaces between words.
_WITHOUT_SPACES = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


def words_of(text: str) -> list[bytes]:
    """The folded words of a text, UTF-8."""
    if text.isascii():
        return text.encode().translate(_ASCII).split()
    # Composed first: the folding looks at one character at a time. Lone surrogates are not text.
    return unicodedata.normalize("NFKC", text).translate(_FOLDING).encode(errors="replace").split()


def num_letters(word: bytes) -> int:
    """Letters of a folded word; a Korean syllable counts its own."""
    return len(unicodedata.normalize("NFKD", word.decode()))


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
