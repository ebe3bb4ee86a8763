"""What an LLM puts around its texts comes off; what is no text does not get in."""

from __future__ import annotations

import pytest

from onceedit_vllm.wordings.lines import read_lines


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ("1. Where is X?\n2) Who is X?\n(3) When was X?", ["Where is X?", "Who is X?", "When was X?"]),
        ("- Where is X?\n* Who is X?\n• When was X?", ["Where is X?", "Who is X?", "When was X?"]),
        ('Here are 2 questions:\n\n**Where is X?**\n"Who is X?"', ["Where is X?", "Who is X?"]),
        ("“Where is X?”\nWhere is X?", ["Where is X?"]),
        ("1960 was the year of X", ["1960 was the year of X"]),
        ("word " * 61, []),
        ("", []),
    ],
)
def test_texts_are_read(written: str, texts: list[str]) -> None:
    assert read_lines(written) == texts


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ("X lies in ...\nX lies in ____.\nX lies in [place]", ["X lies in"]),
        ("X lies in Oslo.\nWhere is X?", []),
    ],
)
def test_a_half_sentence_stops_before_its_answer(written: str, texts: list[str]) -> None:
    assert read_lines(written, is_half=True) == texts
