"""A partition of Unicode into a few cells, coarse enough to reason about a pre-tokenizer's regex.

A cell is one bit, a set of cells an int. Characters whose class could differ between Python's and
the tokenizer's Unicode tables belong to no cell: nothing is ever claimed about them.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

SPACE, LF, CR, BLANK, UPPER, TITLE, LOWER, MODIFIER, IDEOGRAPH, NUMBER, MARK, APOSTROPHE, OTHER = (
    1 << i for i in range(13)
)
NUM_CELLS = 13
ALL = (1 << NUM_CELLS) - 1
WHITESPACE = SPACE | LF | CR | BLANK
LETTER = UPPER | TITLE | LOWER | MODIFIER | IDEOGRAPH
#: Cells of one character: naming the character names the whole cell.
SINGLETONS = {" ": SPACE, "\n": LF, "\r": CR, "'": APOSTROPHE}
#: General categories that are exactly one cell or a union of cells.
EXACT = {
    "L": LETTER, "Lu": UPPER, "Lt": TITLE, "Ll": LOWER, "Lm": MODIFIER, "Lo": IDEOGRAPH,
    "N": NUMBER, "M": MARK,
}  # fmt: skip
#: What a part of a general category may fall into, by its first letter. Separators and controls
#: are either whitespace or in no cell.
BY_CATEGORY = {
    "L": LETTER, "N": NUMBER, "M": MARK, "P": OTHER | APOSTROPHE, "S": OTHER, "Z": SPACE | BLANK,
    "C": LF | CR | BLANK,
}  # fmt: skip


@lru_cache(maxsize=1 << 16)
def cell_of(character: str) -> int:
    """The cell of one character, 0 if in none."""
    if character in SINGLETONS:
        return SINGLETONS[character]
    category = unicodedata.category(character)
    if character.isspace():
        # U+001C..U+001F are whitespace to Python and to nobody else.
        return 0 if "\x1c" <= character <= "\x1f" else BLANK
    # Unassigned in Unicode 3.2, or moved since: versions of the tables may disagree.
    if unicodedata.ucd_3_2_0.category(character) != category or category[0] in "CZ":
        return 0
    return EXACT.get(category, BY_CATEGORY[category[0]] & ~APOSTROPHE)


def cells_of_range(first: str, last: str) -> int:
    """The cells that hold a character between two, both included."""
    cells = 0
    for code in range(ord(first), ord(last) + 1):
        cells |= cell_of(chr(code))
    return cells
