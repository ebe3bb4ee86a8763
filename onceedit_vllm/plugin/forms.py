"""Names in other spellings and forms than their edits', as a text has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

#: What must not stand around: the form would be a part of another word, of a code or of an address.
BEFORE, BEHIND = r"(?<![\w.&/@-])", r"(?![\w&/@]|\.\w|-[A-Z]{2})"


class Form(NamedTuple):
    """What is meant by a form.

    Attributes:
        name: As an edit has it.
        edits: Indices of the edits.
    """

    name: str
    edits: tuple[int, ...]


Forms = Mapping[str, Form]


def is_in(text: str, form: str) -> bool:
    """Whether a form stands in a text by itself."""
    return form in text and re.search(f"{BEFORE}{re.escape(form)}{BEHIND}", text) is not None


def replace_forms(text: str, by: Mapping[str, str]) -> str:
    """A text with something else for each form, the longest first, in one pass."""
    if not by:
        return text
    longest = sorted(by, key=lambda form: (-len(form), form))
    pattern = f"{BEFORE}(?:{'|'.join(map(re.escape, longest))}){BEHIND}"
    return re.sub(pattern, lambda match: by[match[0]], text)
