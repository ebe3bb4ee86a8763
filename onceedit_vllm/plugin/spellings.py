"""Names that a text spells otherwise than their edit: "Washington DC", "St. Helena", "Johnson and Johnson".

Initials have stops or none, some words are written out or short, and "&" is "and". All that is looked for as
it is written, capitals included: without them "US" is "us", and "R.E.M." is "rem".
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import regex

from onceedit_vllm.plugin.folding import words_of
from onceedit_vllm.plugin.forms import BEFORE, BEHIND, Form

if TYPE_CHECKING:
    from onceedit_vllm.edits import EditRecord


def _initials(letters: str) -> str:
    """With stops and without, never with some; in small letters with stops, or where they make no word."""
    stopped = r"\.".join(letters)
    ways = [letters, rf"{stopped}\.?", r"\. ".join(letters) + r"\.", rf"{stopped.lower()}\.?"]
    if not re.search("[aeiouy]", letters, re.IGNORECASE):
        ways.append(letters.lower())
    return "|".join(ways)


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
        rf"(?i:United States(?: of America)?)|{_initials('USA')}|{_initials('US')}",
        (b"united", b"u", b"us", b"usa"),
        alone=True,
    ),
    _Way(
        "United Kingdom", rf"(?i:United Kingdom)|{_initials('UK')}|uk", (b"united", b"u", b"uk"), alone=True
    ),
    _Way("United Nations", rf"(?i:United Nations)|{_initials('UN')}", (b"united", b"u", b"un"), alone=True),
    _Way("Football Club", rf"(?i:Football Club)|{_initials('FC')}", (b"football", b"f", b"fc")),
    # Behind a name "St" is a street.
    _Way("Saint", r"(?:(?i:Saint)|[Ss]t\.?)(?=[ -]\w)", (b"saint", b"st")),
    _Way("Mount", r"(?:(?i:Mount)|[Mm]t\.?)(?=[ -]\w)", (b"mount", b"mt")),
    _Way("Fort", r"(?:(?i:Fort)|Ft\.?)(?=[ -]\w)", (b"fort", b"ft")),
)
_STOPPED = r"(?:\p{Lu}\.){1,5}\p{Lu}\.?|(?:\p{Lu}\. ){1,4}\p{Lu}\."
_PARTS = regex.compile(
    "|".join(
        (
            *(f"(?P<way{at}>{BEFORE}(?:{way.pattern}){BEHIND})" for at, way in enumerate(_WAYS)),
            f"(?P<stopped>{BEFORE}(?:{_STOPPED}){BEHIND})",
            rf"(?P<capitals>{BEFORE}(?![IVXL]+\b)\p{{Lu}}{{2,5}}{BEHIND})",
            r"(?P<sign>(?<=\w ?)&(?= ?\w))|(?P<and>(?<=\w )(?i:and)(?= \w))",
            r"(?P<word>[\p{L}\p{M}\p{N}]+)",
        )
    )
)
_ARTICLE = re.compile(r"\s*(?:the|an?)\s+", re.IGNORECASE)
#: Fewer letters with stops or without are too many things.
_LEAST = 3
#: Between two words of a name; no stop, which is their own.
_GAP = r"(?:,? |,|-|\n)"
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
                if _pattern(_bare(name)):
                    self._edits_of[_bare(name)].append(index)
        #: Folded words that every spelling of a name has.
        self._words = {name: frozenset(_plain_words(name)) for name in self._edits_of}
        counts = Counter(word for own in self._words.values() for word in own)
        # By a word that stands in a text, if the name does: the rarest of those in every spelling.
        self._by_word: dict[bytes, list[str]] = defaultdict(list)
        for name, own in self._words.items():
            rarest = [min(own, key=lambda word: (counts[word], word))] if own else _firsts(name)
            for word in dict.fromkeys(rarest):
                self._by_word[word].append(name)

    def find(self, text: str, words: Collection[bytes]) -> dict[str, Form]:
        """The names in a text, as they are written there.

        Args:
            text: Any.
            words: Its folded words.
        """
        there = frozenset(words) if self._by_word else frozenset()
        said = sorted(there & self._by_word.keys())
        if not said or text.isupper():
            return {}
        near = dict.fromkeys(name for word in said for name in self._by_word[word])
        names = (name for name in near if self._words[name] <= there and _has_initials(text, name))
        found: dict[str, Form] = {}
        for name in islice(names, _MOST_TRIED):
            for match in _compiled(name).finditer(text):
                if not _is_shouted(match):
                    known = found.get(match[0], Form(name, ()))
                    found[match[0]] = Form(known.name, (*known.edits, *self._edits_of[name]))
        return found


def is_spelling_of(one: str, name: str) -> bool:
    """Whether a name is another spelling of another name."""
    pattern = _pattern(_bare(name))
    return bool(pattern) and re.fullmatch(pattern, _bare(one)) is not None


def _bare(name: str) -> str:
    """A name without its article, which stands before other spellings as well."""
    article = _ARTICLE.match(name)
    return name[article.end() :] if article else name


def _is_shouted(match: re.Match[str]) -> bool:
    """A word in capitals beside others of them may be any word: HELP US NOW."""
    if not match[0].isalpha() or not match[0].isupper():
        return False
    around = (*match.string[: match.start()].split()[-1:], *match.string[match.end() :].split()[:1])
    return any(word.isupper() and sum(map(str.isalpha, word)) > 1 for word in around)


def _way_of(part: regex.Match[str]) -> _Way | None:
    kind = part.lastgroup or ""
    return _WAYS[int(kind.removeprefix("way"))] if kind.startswith("way") else None


def _letters(initials: str) -> str:
    return "".join(filter(str.isalpha, initials))


@lru_cache(maxsize=1024)
def _compiled(name: str) -> re.Pattern[str]:
    return re.compile(_pattern(name))


def _pattern(name: str) -> str:
    """All spellings of a name; empty where it has one, or one that might be anything."""
    parts = list(_PARTS.finditer(name))
    if not any(map(_has_others, parts)) or (len(parts) == 1 and not _is_telling(parts[0])):
        return ""
    # Two words with "and" between them are two words; two names are one.
    as_written = any(part.lastgroup == "sign" for part in parts)
    joined = _GAP.join(_as_pattern(part, as_written) for part in parts)
    return BEFORE + joined.replace(f"{_GAP}{_AND}{_GAP}", _AND) + BEHIND


#: With what stands around it.
_AND = r"(?: ?& ?| [Aa]nd )"


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
    if part.lastgroup in ("stopped", "capitals"):
        return f"(?:{_initials(_letters(part[0]))})"
    if part.lastgroup in ("sign", "and"):
        return _AND
    return re.escape(part[0]) if as_written else f"(?i:{re.escape(part[0])})"


def _has_initials(text: str, name: str) -> bool:
    """Whether a text has the initials of a name in any way; much faster than to look for the name."""
    return all(any(way in text for way in ways) for ways in _ways_of_initials(name))


@lru_cache(maxsize=16384)
def _ways_of_initials(name: str) -> tuple[tuple[str, ...], ...]:
    """How each initials of a name begin in a text."""
    parts = (part for part in _PARTS.finditer(name) if part.lastgroup in ("stopped", "capitals"))
    return tuple(_beginnings(_letters(part[0])) for part in parts)


def _beginnings(letters: str) -> tuple[str, ...]:
    stopped = ".".join(letters)
    return (letters, stopped, ". ".join(letters), stopped.lower(), letters.lower())


def _plain_words(name: str) -> list[bytes]:
    """Folded words of a name that are written in one way."""
    plain = (part[0] for part in _PARTS.finditer(name) if part.lastgroup == "word")
    return [folded for word in plain for folded in words_of(word)]


def _firsts(name: str) -> list[bytes]:
    """Folded words with one of which each spelling of a name of no plain word begins."""
    part = next(_PARTS.finditer(name))
    way, letters = _way_of(part), _letters(part[0])
    return list(way.firsts) if way else [*words_of(letters), *words_of(letters[:1])]
