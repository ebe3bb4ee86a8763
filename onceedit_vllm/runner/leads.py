"""What somebody says before the question: "We are planning a trip. What is the capital of France?"

The plug-in is small, and the gate shuts on what it has seen nothing like. So it does not read sentences that
stand, in the same line, before the first one that names what the prompt names. Lines of their own it reads:
they may say what is to be done with the text. A sentence that speaks of texts ("Translate this.") may say
that, too: it stays, and all that is behind it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

#: Words that an order about a text has, in English. In other languages such an order in the line of the text
#: is dropped with the rest.
_ABOUT_TEXTS = frozenset(
    (
        b"answer answers article caps category categorise categorize classify code comma compose "
        b"complete continue convert copy correct count decode describe draft edit email encode essay "
        b"explain extract fix following format function grammar grammatical headline ignore improve "
        b"input json label letters line lines list message output paragraph paraphrase passage phrase "
        b"poem print prompt proofread punctuation puzzle question questions quote read remove repeat "
        b"rephrase reply respond review reword rewrite rhyme sentence sentences sentiment shorten "
        b"song spell spelling sql statement story summarise summarize summary synonym synonyms text "
        b"texts title tone translate translation tweet typo vowels word words write"
    ).split()
)
_WORD = re.compile(rb"[A-Za-z]+")
#: A sign that may end a sentence, what may close behind it, and blanks.
_SIGN = re.compile(rb"(?P<sign>[.?!])[)\"']?[ \t]+(?=(?P<next>\S))")
_LAST_WORD = re.compile(rb"[0-9A-Za-z\x80-\xff]+(?=[)\"']?$)")
#: Short words that a full stop abbreviates; any other of two small letters may end a sentence.
_ABBREVIATED = frozenset((b"no", b"vs", b"al", b"cf", b"st", b"ca"))
_LONG = 3
#: The longest word that is looked at, in bytes.
_REACH = 40


class Lead(NamedTuple):
    """Bytes `start` to `end` of a text, the latter not included, are not read."""

    start: int
    end: int


def find_lead(text: bytes, is_asked: Callable[[bytes], bool]) -> Lead | None:
    """The longest lead of a text.

    Args:
        text: UTF-8.
        is_asked: Whether what is left still names all that the text names.
    """
    leads = _leads(text)
    # What is left names the less, the longer the lead: so few of them need be looked at.
    short_enough = bisect_left(leads, True, key=lambda lead: not is_asked(text[lead.end :]))
    return leads[short_enough - 1] if short_enough else None


def _leads(text: bytes) -> list[Lead]:
    """All that could be one, the shortest first."""
    found: list[Lead] = []
    line, speaks_at = -1, 0  # of this line, where it first speaks of texts
    for sign in _SIGN.finditer(text):
        start, end = text.rfind(b"\n", 0, sign.end()) + 1, sign.end()
        if start != line:
            line, speaks_at = start, _speaks_of_texts_at(text, start)
        if end <= speaks_at and _is_end(text, sign):
            found.append(Lead(start, end))
    return found


def _is_end(text: bytes, sign: re.Match[bytes]) -> bool:
    """Whether a sign ends a sentence: a full stop mostly, not behind an abbreviation."""
    if sign["sign"] != b".":
        return True
    word = _LAST_WORD.search(text[max(0, sign.start() - _REACH) : sign.start()])
    if word is None or sign["next"].islower() or sign["next"].isdigit():
        return False
    short = word[0]
    return len(short) >= _LONG or (len(short) > 1 and short.islower() and short not in _ABBREVIATED)


def _speaks_of_texts_at(text: bytes, start: int) -> int:
    """Where the first word about texts stands in a line; its end where there is none."""
    end = text.find(b"\n", start)
    end = len(text) if end < 0 else end
    words = _WORD.finditer(text, start, end)
    return next((word.start() for word in words if word[0].lower() in _ABOUT_TEXTS), end)
