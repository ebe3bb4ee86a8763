"""Cuts: places in a text before which no further text changes the tokens.

Where a text's words and tokens begin is asked of the tokenizer itself. That no later text moves a
border is known in two cases:

- a regex pre-tokenizer: the regex found all words before the border without reading the text to its
  end. :mod:`regex` is asked, by a partial match;
- BPE without pre-tokenization: no token holds the two characters at the border side by side, so no
  merge crosses it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import regex
from tokenizers import Encoding

METASPACE = "▁"

#: Escapes that `regex` and the tokenizer's engine (Oniguruma) read alike.
_ESCAPE = regex.compile(r"\\[pP](?:\{\^?\w+\}|[A-Z])|\\[sSdDnrtfv]|\\[^\w\s]")
#: What they read differently, or what looks beyond the match: other escapes, anchors, look-arounds,
#: flags (but on plain letters), operations on sets, braces that are no count or are followed by a sign.
_UNSURE = regex.compile(
    r"\\|\$|(?<!\[)\^|\(\?(?!:|i:['\w|]*\))|&&|\|\||--|~~|\[:|\{(?!\d+(?:,\d*)?\}|,\d+\})|\}[+?]"
)
#: A noncharacter; scanned text has another in its place.
_NOWHERE = "\uffff"


class UnprovenError(Exception):
    """Nothing is known about where this tokenizer's texts may be cut."""


class Cut(NamedTuple):
    """A place in a text, 0 of both for its start.

    Attributes:
        num_tokens: Tokens before it.
        num_characters: Characters before it.
    """

    num_tokens: int
    num_characters: int


NO_CUT = Cut(0, 0)


class CutRule(Protocol):
    """Says where a text may be cut."""

    def last_cut(self, text: str, encoding: Encoding) -> Cut:
        """The last cut inside `text`, which was encoded as `encoding`; :data:`NO_CUT` if there is none.

        The tokens before it are final, and those behind it are the tokens of the rest encoded apart,
        whatever text is still to come.
        """


@dataclass(frozen=True)
class RegexCuts:
    """Cuts at the borders of regex pre-tokens.

    A regex that looks around no farther than ``\\s+(?!\\S)`` splits a text from left to right, and its
    choice at a position can depend on later text only if it reads all the text there is before it
    has chosen. Up to the first such position every border is final.

    Attributes:
        scanners: One for each stage, see :func:`scanner`.
        extracted: Added tokens that are taken out of a text first: what follows one is split anew.
        joined: Pairs of characters inside some added token.
        lead: What the pre-tokenizer puts before a text.
        normalize: NFC as the tokenizer does it, which may join a character and the marks after it.
    """

    scanners: tuple[regex.Pattern[str], ...]
    extracted: frozenset[int] = field(repr=False)
    joined: frozenset[str] = field(repr=False)
    lead: str = ""
    normalize: Callable[[str], str] | None = None

    def last_cut(self, text: str, encoding: Encoding) -> Cut:
        """See :class:`CutRule`."""
        start = self._last_stretch(encoding)
        num_final = self._num_final(text[start:])
        if start + num_final < 1:
            return NO_CUT
        words = encoding.word_ids
        for cut in _borders(encoding):
            i, position = cut
            if words[i - 1] == words[i] or not self._stands_apart(text[position - 1], text[position]):
                continue
            if position <= start or self._length(text[start:position]) <= num_final:
                return cut
        return NO_CUT

    def _last_stretch(self, encoding: Encoding) -> int:
        """Where the text behind the last extracted token begins."""
        if self.extracted:
            for index, (_, end) in zip(reversed(encoding.ids), reversed(encoding.offsets), strict=True):
                if index in self.extracted:
                    return end
        return 0

    def _num_final(self, stretch: str) -> int:
        """Characters, normalized, at and before which a border is final."""
        known = self.lead + (stretch if self.normalize is None else self._settled(self.normalize(stretch)))
        known = known.replace(_NOWHERE, "\ufffe")
        start, end = 0, len(known)
        # A stage splits what an earlier one left whole; that may grow where it is the last, or
        # end anywhere behind what is final for the earlier one.
        for scan in self.scanners:
            found = scan.match(known[:end], start, partial=True)
            start, end = max(start, found.end("match")), max(start, found.end("step"))
        return end - len(self.lead)

    def _stands_apart(self, left: str, right: str) -> bool:
        # An added token after whitespace would end the text for a look-ahead from that whitespace.
        if left.isspace() or pair(left, right) in self.joined:
            return False
        # Behind a starter that has not joined what is before it, nothing ever does.
        return self.normalize is None or not unicodedata.combining(right)

    def _length(self, text: str) -> int:
        return len(text if self.normalize is None else self.normalize(text))

    @staticmethod
    def _settled(normalized: str) -> str:
        """What no further text changes: all before the last starter, which may be composed yet."""
        end = len(normalized)
        while end and unicodedata.combining(normalized[end - 1]):
            end -= 1
        return normalized[: max(0, end - 1)]


@dataclass(frozen=True)
class BigramCuts:
    """Cuts between characters that no token of the vocabulary holds side by side."""

    joined: frozenset[str] = field(repr=False)

    def last_cut(self, text: str, encoding: Encoding) -> Cut:
        """See :class:`CutRule`."""
        for cut in _borders(encoding):
            position = cut.num_characters
            if pair(text[position - 1], text[position]) not in self.joined:
                return cut
        return NO_CUT


def _borders(encoding: Encoding) -> Iterator[Cut]:
    """Where a token begins and none goes on, the start aside, from the last to the first."""
    offsets = encoding.offsets
    for i in range(len(offsets) - 1, 0, -1):
        start = offsets[i][0]
        if 0 < start >= offsets[i - 1][1]:
            yield Cut(i, start)


def pair(left: str, right: str) -> str:
    """Two neighbouring characters, a space spelled ``▁``."""
    return (left + right).replace(" ", METASPACE)


def scanner(pattern: str) -> regex.Pattern[str]:
    """A pattern whose partial match goes through a text as a pre-tokenizer splits it.

    It stops where `pattern` reads to the end of the text. Its last ``step``, a match or a character
    between matches, ends there, the last ``match`` ends there or before.

    Raises:
        UnprovenError: The regex looks beyond its matches, may match nothing, or is not surely read
            alike by both engines.
    """
    if _UNSURE.search(_ESCAPE.sub("_", pattern.replace(r"\s+(?!\S)", r"\s+"))):
        raise UnprovenError(pattern)
    try:
        nothing = regex.compile(pattern, regex.V1).match("")
        # Never a match in full, so that it is a partial one. Atomic groups choose once, as a
        # tokenizer does; a repeat that comes to the end is not partial by itself, the look-ahead is.
        found = regex.compile(rf"(?s:(?P<step>(?P<match>(?>(?-s:{pattern}))(?=.))|.)*+{_NOWHERE})", regex.V1)
    except regex.error as error:
        raise UnprovenError(str(error)) from error
    if nothing:
        raise UnprovenError(pattern)
    return found
