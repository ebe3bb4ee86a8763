"""Texts in sentences."""

from __future__ import annotations

import re

#: Behind a sign that ends a sentence, unless it stands behind an initial or a title.
_BORDER = re.compile(r"(?<=[.?!])(?<!\b[A-Z]\.)(?<!\b(?:Mr|Dr|St|Jr|Co)\.)(?<!\b(?:Mrs|Inc|Ltd)\.)\s+|\n+")
_LETTER = re.compile(r"\w")


def sentences_of(text: str) -> list[str]:
    """The sentences of a text that have a letter or a figure; lines are sentences too."""
    return [sentence for sentence in _BORDER.split(text) if _LETTER.search(sentence)]
