"""The abstract run of a regex, against the regex itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.plugin.char_cells import (
    ALL,
    APOSTROPHE,
    BLANK,
    CR,
    IDEOGRAPH,
    LETTER,
    LF,
    LOWER,
    MARK,
    NUMBER,
    OTHER,
    SPACE,
    UPPER,
    cell_of,
)
from onceedit_vllm.plugin.regex_pairs import RegexPairs, UnprovenError, analyse
from tests.unit.plugin.sync_cases import FRAGMENTS
from tests.unit.plugin.zoo import DEEPSEEK_REGEX, GPT4O_REGEX, LLAMA3_REGEX

GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS = (
    GPT2_REGEX,
    LLAMA3_REGEX,
    GPT4O_REGEX,
    r"\p{N}{1,3}|[^\p{N}]",
    r"[a-zA-Z]+ ?|[^a-zA-Z]",
    r"(?:\p{L}\d)?+\p{L}|\s++|[^\p{L}\s]",
    DEEPSEEK_REGEX,
    r" ?[^(\s|[.,!?…。，、।۔،])]+",
)


@pytest.mark.parametrize(
    ("character", "cell"),
    [
        (" ", SPACE), ("\n", LF), ("\r", CR), ("\t", BLANK), ("\u00a0", BLANK), ("a", LOWER), ("A", UPPER),
        ("語", IDEOGRAPH), ("7", NUMBER), ("\u0301", MARK), ("'", APOSTROPHE), ("!", OTHER), ("😀", 0),
        ("\x1c", 0), ("\u200d", 0), ("\x00", 0),
    ],
)  # fmt: skip
def test_cells(character: str, cell: int) -> None:
    assert cell_of(character) == cell


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=150, deadline=None)
@given(text=st.lists(st.sampled_from(FRAGMENTS) | st.characters(codec="utf-8"), max_size=12).map("".join))
def test_no_match_holds_a_pair_that_is_excluded(pattern: str, text: str) -> None:
    from tokenizers import Regex, pre_tokenizers

    pairs = analyse(pattern)
    pieces = pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str(text)
    for piece, _ in pieces:
        cells = [cell_of(character) for character in piece]
        for left, right in pairwise(cells):
            matched = cells[0] & pairs.covers  # an unmatched stretch starts with an uncovered character
            assert not left or not right or pairs.allows(left, right) or not matched


@pytest.mark.parametrize("pattern", [GPT2_REGEX, LLAMA3_REGEX, GPT4O_REGEX])
def test_regexes_in_use_match_every_character(pattern: str) -> None:
    assert analyse(pattern).covers == ALL


@pytest.mark.parametrize(
    ("pattern", "left", "right", "together"),
    [
        (GPT2_REGEX, LOWER, SPACE, False),
        (GPT2_REGEX, SPACE, LOWER, True),
        (GPT2_REGEX, APOSTROPHE, LOWER, True),
        (GPT2_REGEX, LOWER, APOSTROPHE, False),
        (GPT2_REGEX, NUMBER, NUMBER, True),
        (LLAMA3_REGEX, OTHER, LF, True),
        (GPT2_REGEX, OTHER, LF, False),
        (LLAMA3_REGEX, OTHER, LOWER, True),
        (GPT4O_REGEX, LOWER, APOSTROPHE, True),
        (r"\p{N}", NUMBER, NUMBER, False),
        (r"\p{N}{2}", NUMBER, NUMBER, True),
        (r"a?b", LOWER, LOWER, True),
    ],
)
def test_pairs(pattern: str, left: int, right: int, together: bool) -> None:
    assert analyse(pattern).allows(left, right) is together


@pytest.mark.parametrize(
    ("pattern", "covers"),
    [
        (r"\p{L}+", LETTER),
        (r" ?\p{L}+", LETTER),
        (r"\s?+\s", 0),
        (r"\p{L}{2}", 0),
        (r"\p{L}\p{N}", 0),
        (r"[a-z]+", 0),
        (r"\s+(?!\S)", 0),
        (r"[^\p{L}]", ALL & ~LETTER),
        (r"\P{L}| ", ALL & ~LETTER),
    ],
)
def test_covers(pattern: str, covers: int) -> None:
    assert analyse(pattern).covers == covers


@pytest.mark.parametrize(
    "pattern",
    [
        "^a", "a$", r"\ba", "(?<=a)b", "(?>a)", "(?i)a", r"(a)\1", "a*", "", "(a", "a)", "[a", "[a&&b]",
        "[[:alpha:]]", r"\S(?!\S)", "(?!a)b", "(?=a)a", r"[\t-\r]", "[]a]", "a{x}", "*a", "\\",
    ],
)  # fmt: skip
def test_what_is_not_modelled_is_refused(pattern: str) -> None:
    with pytest.raises(UnprovenError):
        analyse(pattern)


def test_nothing_is_claimed_of_an_empty_sequence() -> None:
    assert RegexPairs().nullable
    assert not RegexPairs().covers
