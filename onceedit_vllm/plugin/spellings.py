"""Names that a text spells otherwise than their edit: "Washington DC", "St. Helena", "Johnson and Johnson".

Initials have stops or none, some words are written out or short, and "&" is "and". All that is looked for as
it is written, capitals included: without them "US" is "us", and "R.E.M." is "rem".
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import regex

from onceedit_vllm.plugin.folding import words_of

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord


class _Way(NamedTuple):
    """One thing that is written out or short.

    Attributes:
        whole: Written out.
        pattern: All ways to write it.
        firsts: Folded words of which each way begins with one.
        alone: Whether it is a name without any other word.
    """

    whole: str
    pattern: str
    firsts: tuple[bytes, ...]
    alone: bool = False


_WAYS = (
    _Way(
        "United States",
        r"(?i:United States(?: of America)?)|U\.?S\.?(?:A\.?)?|U\. S\.(?: A\.)?",
        (b"united", b"u", b"us", b"usa"),
        alone=True,
    ),
    _Way("United Kingdom", r"(?i:United Kingdom)|U\.?K\.?|U\. K\.", (b"united", b"u", b"uk"), alone=True),
    _Way("United Nations", r"(?i:United Nations)|U\.?N\.?|U\. N\.", (b"united", b"u", b"un"), alone=True),
    _Way("Football Club", r"(?i:Football Club)|F\.?C\.?|F\. C\.|fc", (b"football", b"f", b"fc")),
    _Way("Saint", r"(?i:Saint)|[Ss]t\.?", (b"saint", b"st")),
    _Way("Mount", r"(?i:Mount)|[Mm]t\.?", (b"mount", b"mt")),
    _Way("Fort", r"(?i:Fort)|Ft\.?", (b"fort", b"ft")),
)
_START, _END = r"(?<![\w.&])", r"(?![\w&]|\.\w)"
_STOPPED = r"(?:\p{Lu}\.){1,5}\p{Lu}\.?|(?:\p{Lu}\. ){1,4}\p{Lu}\."
_PARTS = regex.compile(
    "|".join(
        (
            *(f"(?P<way{at}>{_START}(?:{way.pattern}){_END})" for at, way in enumerate(_WAYS)),
            f"(?P<stopped>{_START}(?:{_STOPPED}){_END})",
            rf"(?P<capitals>{_START}(?![IVXL]+\b)\p{{Lu}}{{2,5}}{_END})",
            r"(?P<sign>(?<=\s)&(?=\s))|(?P<and>(?<=\s)(?i:and)(?=\s))",
            r"(?P<word>[\p{L}\p{M}\p{N}]+)",
        )
    )
)
_VOWEL = regex.compile(r"[aeiouy]")
_ARTICLES = ("the", "a", "an")
#: Fewer letters with stops or without are too many things.
_LEAST = 3
#: Between two words of a name.
_GAP = r"[^\w\n]{1,3}"
#: Names that are looked for in one text, at most; of more with their rarest word in common some are missed.
_MOST_TRIED = 64


class OtherSpellings:
    """Finds names by other spellings.

    Args:
        edits: The pack's, in its order.
    """

    def __init__(self, edits: Sequence[EditRecord]) -> None:
        self._edits_of: dict[str, list[int]] = defaultdict(list)
        for index, edit in enumerate(edits):
            for name in dict.fromkeys((edit.subject or "", *edit.aliases)):
                if _pattern(name):
                    self._edits_of[name].append(index)
        #: Folded words that every spelling of a name has.
        self._words = {name: frozenset(_plain_words(name)) for name in self._edits_of}
        counts = Counter(word for own in self._words.values() for word in own)
        # By a word that stands in a text, if the name does: the rarest of those in every spelling.
        self._by_word: dict[bytes, list[str]] = defaultdict(list)
        for name, own in self._words.items():
            rarest = [min(own, key=lambda word: (counts[word], word))] if own else _firsts(name)
            for word in dict.fromkeys(rarest):
                self._by_word[word].append(name)

    def find(self, text: str, words: Collection[bytes]) -> dict[str, list[int]]:
        """The names in a text, as they are written there, with the edits of each.

        Args:
            text: Any.
            words: Its folded words.
        """
        there = frozenset(words) if self._by_word else frozenset()
        said = sorted(there & self._by_word.keys())
        if not said or text.isupper():
            return {}
        near = dict.fromkeys(name for word in said for name in self._by_word[word])
        names = (name for name in near if self._words[name] <= there)
        found: dict[str, list[int]] = {}
        for name in islice(names, _MOST_TRIED):
            for match in _compiled(name).finditer(text):
                found.setdefault(match[0], self._edits_of[name])
        return found


def spell_out(name: str) -> str:
    """A name in one spelling of all that it has."""
    spelled: str = _PARTS.sub(lambda match: _spelled_out(match) or match[0], name)
    return spelled


def _spelled_out(part: regex.Match[str]) -> str | None:
    way = _way_of(part)
    if way:
        return way.whole
    if part.lastgroup == "stopped":
        return "".join(_letters(part[0]))
    return "and" if part.lastgroup == "sign" else None


def _way_of(part: regex.Match[str]) -> _Way | None:
    kind = part.lastgroup or ""
    return _WAYS[int(kind.removeprefix("way"))] if kind.startswith("way") else None


def _letters(initials: str) -> list[str]:
    return [letter for letter in initials if letter.isalpha()]


@lru_cache(maxsize=1024)
def _compiled(name: str) -> re.Pattern[str]:
    return re.compile(_pattern(name))


def _pattern(name: str) -> str:
    """All spellings of a name; empty where it has one, or one that might be anything."""
    parts = list(_PARTS.finditer(name))
    told = [part for part in parts if part[0].lower() not in _ARTICLES]
    if not any(map(_has_others, parts)) or (len(told) == 1 and not _is_telling(told[0])):
        return ""
    # Two words with "and" between them are two words; two names are one.
    as_written = any(part.lastgroup == "sign" for part in parts)
    return _START + _GAP.join(_as_pattern(part, as_written) for part in parts) + _END


def _has_others(part: regex.Match[str]) -> bool:
    return str(part.lastgroup) != "word"


def _is_telling(part: regex.Match[str]) -> bool:
    """Whether other spellings of it can stand for something by themselves."""
    way = _way_of(part)
    return way.alone if way else len(_letters(part[0])) >= _LEAST


def _as_pattern(part: regex.Match[str], as_written: bool) -> str:
    """How one part may be written."""
    way = _way_of(part)
    if way:
        return f"(?:{way.pattern})"
    if part.lastgroup == "stopped":
        return _initials(_letters(part[0]))
    if part.lastgroup == "capitals":
        return f"(?:{part[0]}|{'[.]'.join(part[0])}[.]?|{'[.] '.join(part[0])}[.])"
    if part.lastgroup in ("sign", "and"):
        return "(?:&|and|And)"
    return re.escape(part[0]) if as_written else f"(?i:{re.escape(part[0])})"


def _initials(letters: Sequence[str]) -> str:
    """With stops and without; in small letters where these make no word."""
    stopped, joined = r"\.? ?".join(letters), "".join(letters).lower()
    return f"(?:{stopped}\\.?)" if _VOWEL.search(joined) else f"(?:{stopped}\\.?|{joined})"


def _plain_words(name: str) -> list[bytes]:
    """Folded words of a name that are written in one way."""
    plain = (part[0] for part in _PARTS.finditer(name) if part.lastgroup == "word")
    return [folded for word in plain for folded in words_of(word)]


def _firsts(name: str) -> list[bytes]:
    """Folded words with one of which each spelling of a name of no plain word begins."""
    return list(_firsts_of(next(_PARTS.finditer(name))))


def _firsts_of(part: regex.Match[str]) -> Iterator[bytes]:
    way = _way_of(part)
    if way:
        yield from way.firsts
        return
    letters = "".join(_letters(part[0]))
    yield from words_of(letters)
    yield from words_of(letters[:1])
