"""The same name spelled otherwise: "Washington, D.C." and "Washington DC", "Saint Louis" and "St. Louis"."""

from __future__ import annotations

from collections.abc import Iterator

import regex

#: Ways to write one thing.
_WAYS = (
    ("United States of America", "United States", "U.S.A.", "U.S."),
    ("United Kingdom", "U.K."),
    ("United Nations", "U.N."),
    ("Football Club", "F.C."),
    ("Saint", "St."),
    ("Mount", "Mt."),
    ("Fort", "Ft."),
)
#: Each way as whole words, with its stops or without.
_PATTERNS = {
    way: regex.compile(rf"(?<![\p{{L}}\d.]){way.replace('.', '[.]?')}(?![\p{{L}}\d])")
    for ways in _WAYS
    for way in ways
}
#: Letters with stops, and capitals that may be such letters without.
_STOPPED = regex.compile(r"(?<![\p{L}\d])(?:\p{Lu}\. ?){1,5}\p{Lu}(?:\.|(?![\p{L}\d]))")
_CAPITALS = regex.compile(r"(?<![\p{L}\d.])\p{Lu}{2,4}(?![\p{L}\d]|\.\p{Lu})")
#: Fewer letters in a row may be another word: US and us.
_TELLING = 3


def spellings(name: str) -> tuple[str, ...]:
    """All of a name, itself first; none by which a word of the language would be meant."""
    written = dict.fromkeys((name, *_ways(name)))
    found = dict.fromkeys(other for one in written for other in (one, *_with_and_without_stops(one)))
    return (name, *(other for other in found if other != name and _is_telling(other)))


def _ways(name: str) -> Iterator[str]:
    for ways in _WAYS:
        said = [pattern for way in ways if (pattern := _PATTERNS[way]).search(name)]
        if said:
            yield from (said[0].sub(other, name) for other in ways)


def _with_and_without_stops(name: str) -> Iterator[str]:
    yield _STOPPED.sub(lambda match: regex.sub(r"[. ]", "", match[0]), name)
    yield _CAPITALS.sub(lambda match: "".join(f"{letter}." for letter in match[0]), name)


def _is_telling(name: str) -> bool:
    return "." in name or sum(map(str.isalnum, name)) >= _TELLING
