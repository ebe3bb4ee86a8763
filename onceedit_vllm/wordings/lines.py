"""From what an LLM wrote to the texts in it, whatever it put around them."""

from __future__ import annotations

import re

#: Numbers, bullets and labels before a text.
_MARK = re.compile(r"^\s*(?:[-*•–]+\s+|\(?\d{1,2}[.):]\s*|[A-Za-z]\)\s+|#+\s*)+")
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»", "`": "`"}
#: Where the answer of a half sentence is left out.
_BLANK = re.compile(r"\s*(?:\.{2,}|…|_{2,}|\[[^\]]*\]|-{2,})[\s.]*$")
#: Longer texts are no wordings any more.
MOST_WORDS = 60


def read_lines(written: str, *, is_half: bool = False) -> list[str]:
    """The texts that an LLM wrote, one a line.

    Args:
        written: All that it wrote.
        is_half: They must stop before the answer: a finished sentence is none.
    """
    found = [_clean(line, is_half) for line in written.splitlines()]
    kept = [text for text in found if text and len(text.split()) <= MOST_WORDS and not text.endswith(":")]
    return [text for text in dict.fromkeys(kept) if not (is_half and text.endswith((".", "?", "!")))]


def _clean(line: str, is_half: bool) -> str:
    text = _MARK.sub("", line).replace("**", "").strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return _BLANK.sub("", text) if is_half else text
