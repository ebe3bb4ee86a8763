"""Which two neighbouring characters can fall into one match of a pre-tokenizer's regex.

A text may be cut between two characters, and both halves be tokenized apart, when no match can
hold both. :func:`analyse` proves that for whole classes of characters (cells) by an abstract run of
the regex: every answer is on the safe side, and a construct it does not know raises
:class:`UnprovenError`, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from onceedit_vllm.plugin.char_cells import (
    ALL,
    APOSTROPHE,
    BY_CATEGORY,
    EXACT,
    LETTER,
    LF,
    MARK,
    NUM_CELLS,
    NUMBER,
    OTHER,
    SINGLETONS,
    WHITESPACE,
    cell_of,
    cells_of_range,
)

_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_NO_FOLLOWERS = (0,) * NUM_CELLS


class UnprovenError(Exception):
    """The regex uses something this analysis does not model."""


class _Set(NamedTuple):
    """A set of characters, from both sides: the cells it touches, the cells it holds whole."""

    may: int
    must: int

    def __or__(self, other: _Set) -> _Set:
        return _Set(self.may | other.may, self.must | other.must)

    def inverted(self) -> _Set:
        return _Set(ALL & ~self.must, ALL & ~self.may)


@dataclass(frozen=True)
class RegexPairs:
    """What a regex's matches look like, in cells.

    Attributes:
        follow: ``follow[i]``: the cells that may come right after cell ``i`` inside a match.
        covers: A match starts at every character of these cells, whatever follows.
        first: Cells a match may start with.
        last: Cells a match may end with.
        nullable: It may match nothing.
        blocks: It depends on what follows it (a look-ahead).
    """

    follow: tuple[int, ...] = _NO_FOLLOWERS
    covers: int = 0
    first: int = 0
    last: int = 0
    nullable: bool = True
    blocks: bool = False

    def allows(self, left: int, right: int) -> bool:
        """True when a match may hold a character of cell `left` and, right after it, of `right`."""
        return bool(self.follow[left.bit_length() - 1] & right)

    def then(self, other: RegexPairs) -> RegexPairs:
        """This, followed by `other`; `covers` is for the caller to work out."""
        return RegexPairs(
            follow=_linked(_union(self.follow, other.follow), self.last, other.first),
            first=self.first | (other.first if self.nullable else 0),
            last=other.last | (self.last if other.nullable else 0),
            nullable=self.nullable and other.nullable,
            blocks=self.blocks or other.blocks,
        )

    def either(self, other: RegexPairs) -> RegexPairs:
        """This or `other`."""
        return RegexPairs(
            follow=_union(self.follow, other.follow),
            covers=self.covers | other.covers,
            first=self.first | other.first,
            last=self.last | other.last,
            nullable=self.nullable or other.nullable,
            blocks=self.blocks or other.blocks,
        )

    def repeated(self, least: int, most: int | None) -> RegexPairs:
        """This, `least` to `most` times; None: any number."""
        many = most is None or most > 1
        return RegexPairs(
            follow=_linked(self.follow, self.last, self.first) if many else self.follow,
            covers=self.covers if least <= 1 else 0,
            first=self.first,
            last=self.last,
            nullable=self.nullable or least == 0,
            blocks=self.blocks,
        )


def analyse(pattern: str) -> RegexPairs:
    """Run a regex abstractly.

    Raises:
        UnprovenError: It holds anchors, look-behinds, atomic groups, back-references, inline flags,
            set intersections, or it can match nothing at all.
    """
    parser = _Parser(pattern)
    found = parser.alternatives()
    if parser.position < len(pattern) or found.nullable:
        raise UnprovenError(pattern)
    return found


def _union(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a | b for a, b in zip(left, right, strict=True))


def _linked(follow: tuple[int, ...], before: int, after: int) -> tuple[int, ...]:
    return tuple(cells | after if before >> i & 1 else cells for i, cells in enumerate(follow))


def _one(characters: _Set) -> RegexPairs:
    return RegexPairs(covers=characters.must, first=characters.may, last=characters.may, nullable=False)


def _literal(character: str) -> _Set:
    cell = cell_of(character)
    # In a case-insensitive group a letter stands for others too.
    return _Set(LETTER if cell & LETTER else cell, SINGLETONS.get(character, 0))


class _Parser:
    """Recursive descent over the syntax that tokenizers use."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0

    def peek(self, length: int = 1) -> str:
        return self.pattern[self.position : self.position + length]

    def take(self, expected: str = "") -> str:
        character = self.peek()
        if not character or (expected and character != expected):
            raise UnprovenError(self.pattern)
        self.position += 1
        return character

    def accept(self, text: str) -> bool:
        if not self.pattern.startswith(text, self.position):
            return False
        self.position += len(text)
        return True

    def alternatives(self) -> RegexPairs:
        found = self.sequence()
        while self.accept("|"):
            found = found.either(self.sequence())
        return found

    def sequence(self) -> RegexPairs:
        whole = RegexPairs()
        required: list[int] = []  # what each item that cannot be skipped covers
        swallowed = 0  # what possessive items may eat without giving it back
        while self.peek() not in ("", "|", ")"):
            if self.accept(r"(?!\S)"):
                # It looks one character ahead, always from right behind whitespace: never from
                # behind the characters that a text is cut after.
                if whole.last & ~WHITESPACE or whole.nullable:
                    raise UnprovenError(self.pattern)
                item, possessive = RegexPairs(blocks=True), False
            else:
                item, possessive = self.quantified(self.atom())
            whole = whole.then(item)
            if not item.nullable:
                required.append(item.covers & ~swallowed)
            if possessive:
                swallowed |= item.first
        covers = required[0] if len(required) == 1 and not whole.blocks else 0
        return RegexPairs(whole.follow, covers, whole.first, whole.last, whole.nullable, whole.blocks)

    def quantified(self, item: RegexPairs) -> tuple[RegexPairs, bool]:
        bounds = self.bounds()
        if bounds is None:
            return item, False
        if self.accept("+"):
            # After `?` this is possessive; after braces the tokenizer's engine repeats the whole.
            return item.repeated(bounds[0], 1 if bounds == (0, 1) else None), True
        self.accept("?")
        return item.repeated(*bounds), False

    def bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in {"*": (0, None), "+": (1, None), "?": (0, 1)}.items():
            if self.accept(sign):
                return bounds
        if not self.accept("{"):
            return None
        low, comma, high = self.until("}").partition(",")
        if not (low + high).isdecimal():
            raise UnprovenError(self.pattern)
        if not comma:
            return int(low), int(low)
        return int(low or 0), int(high) if high else None

    def until(self, end: str) -> str:
        start = self.position
        while self.take() != end:
            pass
        return self.pattern[start : self.position - 1]

    def atom(self) -> RegexPairs:
        if self.accept("("):
            if self.peek() == "?" and not (self.accept("?:") or self.accept("?i:")):
                raise UnprovenError(self.pattern)
            inside = self.alternatives()
            self.take(")")
            return inside
        if self.accept("["):
            return _one(self.character_class())
        if self.accept("\\"):
            return _one(self.escape())
        if self.accept("."):
            return _one(_Set(ALL & ~LF, ALL & ~LF))
        if self.peek() in "^$*+?{}])":
            raise UnprovenError(self.pattern)
        return _one(_literal(self.take()))

    def escape(self) -> _Set:
        kind = self.take()
        if kind in _CONTROLS:
            return _literal(_CONTROLS[kind])
        if kind in "pP":
            found = self.property()
            return found if kind == "p" else found.inverted()
        classes = {
            "s": _Set(WHITESPACE, WHITESPACE),
            "d": _Set(NUMBER, 0),
            "w": _Set(LETTER | NUMBER | MARK | OTHER, 0),
        }
        if kind.lower() in classes:
            found = classes[kind.lower()]
            return found if kind.islower() else found.inverted()
        if kind.isalnum():
            raise UnprovenError(self.pattern)
        return _literal(kind)

    def property(self) -> _Set:
        name = self.until("}") if self.accept("{") else self.take()
        inverted, name = name.startswith("^"), name.lstrip("^")
        if name in EXACT:
            found = _Set(EXACT[name], EXACT[name])
        elif name and name[0] in BY_CATEGORY and (len(name) == 1 or (len(name) == 2 and name[1].islower())):
            found = _Set(BY_CATEGORY[name[0]], APOSTROPHE if name in ("P", "Po") else 0)
        else:
            # A script or another property: some of everything.
            found = _Set(ALL, 0)
        return found.inverted() if inverted else found

    def character_class(self) -> _Set:
        inverted = self.accept("^")
        found = _Set(0, 0)
        if self.peek() == "]":
            raise UnprovenError(self.pattern)
        while not self.accept("]"):
            if self.peek(2) in ("&&", "[:"):
                raise UnprovenError(self.pattern)
            if self.accept("["):
                found |= self.character_class()
            elif self.accept("\\"):
                found |= self.escape()
                if self.peek() == "-" and self.peek(2) != "-]":
                    raise UnprovenError(self.pattern)
            else:
                found |= self.range()
        return found.inverted() if inverted else found

    def range(self) -> _Set:
        first = self.take()
        if self.peek() != "-" or self.peek(2) == "-]":
            return _literal(first)
        self.take("-")
        last = self.take()
        if last in "\\[" or last < first:
            raise UnprovenError(self.pattern)
        cells = cells_of_range(first, last)
        whole = sum(cell for one, cell in SINGLETONS.items() if first <= one <= last)
        return _Set(cells, whole)
