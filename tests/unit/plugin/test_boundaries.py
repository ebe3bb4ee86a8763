"""Where a text may be cut, by the structure of its tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.plugin.cuts import BigramCuts, Cut, RegexCuts
from onceedit_vllm.plugin.plain_encoder import PlainEncoder
from tests.unit.plugin.sync_cases import TEXTS
from tests.unit.plugin.zoo import (
    DEEPSEEK_REGEX,
    GPT4O_REGEX,
    LLAMA3_REGEX,
    UNPROVEN,
    ZOO,
    from_zoo,
    with_regex,
)

GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS = {
    "gpt-2": GPT2_REGEX,
    "llama-3": LLAMA3_REGEX,
    "gpt-4o": GPT4O_REGEX,
    "deepseek": DEEPSEEK_REGEX,
    "some of the text": r"\p{L}+(?: \p{N}+)?",
    "bounded": r"\p{N}{1,3}|[^\p{N}]",
    "longer first": r"ab{3}c|to be, or|[a-z]",
    "sentences": r"[^.!?]+[.!?]|.",
    "possessive": r"(?:\p{L}\d)?+\p{L}|\s++|[^\p{L}\s]",
    "lazy": r"<.*?>|'s|\p{L}+?\p{N}|\s+",
    "trailing space": r"[a-zA-Z]+ ?|[^a-zA-Z]",
    "sets in a set": r" ?[^(\s|[.,!?…。，、।۔،])]+",
}


def rule_of(tokenizer: Any) -> Any:
    return PlainEncoder(tokenizer).cut_rule


ENCODERS = {name: PlainEncoder(from_zoo(name)) for name in ZOO if name not in UNPROVEN}
ENCODERS |= {f"regex: {name}": PlainEncoder(with_regex(pattern)) for name, pattern in PATTERNS.items()}


@pytest.mark.parametrize("name", ZOO)
def test_kind_of_rule(name: str) -> None:
    kind = (
        type(None) if name in UNPROVEN else BigramCuts if "sentence" in name or name == "gemma" else RegexCuts
    )
    assert isinstance(rule_of(from_zoo(name)), kind)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_regexes_that_allow_cuts(pattern: str) -> None:
    assert isinstance(rule_of(with_regex(pattern)), RegexCuts)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("at_start", [True, False])
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, more=TEXTS | st.sampled_from("abct's.!> \n1\u0301\""))
def test_a_cut_stands_whatever_follows(name: str, at_start: bool, text: str, more: str) -> None:
    encoder = ENCODERS[name]
    ids, cut = encoder.encode(text, at_start=at_start)
    rest = text[cut.num_characters :] + more
    whole = encoder.encode(text + more, at_start=at_start).ids
    assert ids[: cut.num_tokens] + encoder.encode(rest, at_start=at_start and not cut.num_tokens).ids == whole


@pytest.mark.parametrize(
    ("name", "text", "position"),
    [
        ("byte-level", "one two three", 7),
        ("byte-level", "one two ", 7),
        ("byte-level", "one two", 3),
        ("byte-level", "one", 0),
        ("byte-level", "", 0),
        ("byte-level", "one\ntwo", 3),  # an added token may begin behind whitespace
        ("byte-level", "we don't", 6),
        ("byte-level", "we '", 2),
        ("byte-level", "日本語。北", 4),
        ("byte-level", "oh 😀 no", 4),
        ("byte-level, added text", "one two", 0),  # "e " is in an added token
        ("byte-level, added text", "is two", 2),
        ("byte-level, added text", "so.\n", 2),
        ("byte-level", "ee\u0301", 2),
        ("qwen", "ee\u0301", 0),
        ("qwen", "ee\u0301 e", 3),
        ("qwen", "e e", 1),
        ("sentencepiece", "the play", 3),
        ("sentencepiece", "中\nx", 2),
        ("gemma", "x\n\n", 1),
        ("gemma", "a  ", 0),
        ("quotations", '"one two three', 0),
        ("quotations", 'say "one two', 3),
        ("quotations", 'say "one two" or three', 16),
        ("quotations, added text", '1"to be, or "not', 11),
        ("quotations, added text", 'a123451"23456', 11),
        ("llama-3", "12345678", 6),
    ],
)
def test_last_cut(name: str, text: str, position: int) -> None:
    assert ENCODERS[name].encode(text, at_start=True).cut.num_characters == position


def test_no_cut_has_no_tokens_either() -> None:
    assert ENCODERS["byte-level"].encode("one", at_start=True).cut == Cut(0, 0)


@pytest.mark.parametrize(
    "pattern",
    [
        "^a", "a$", r"\ba", "(?<=a)b", "(?>a)", "(?i)a", r"(a)\1", "a*", "[a&&b]", "[[:alpha:]]",
        r"\S(?!\S)", "(?!a)b", "(?=a)a", r"\Ga", r"\w+", r"\h", "a{1,2}+", "a{1,2}?", "(?i:[a-z])",
    ],
)  # fmt: skip
def test_regexes_that_look_around_or_are_read_otherwise_allow_no_proof(pattern: str) -> None:
    assert rule_of(with_regex(pattern)) is None


@pytest.mark.parametrize("option", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_that_look_around_allow_no_proof(option: str) -> None:
    from tokenizers import AddedToken

    from onceedit_vllm.testing import toy_bpe_tokenizer

    tokenizer = toy_bpe_tokenizer()
    tokenizer.add_tokens([AddedToken("Rome", **{option: True})])
    assert rule_of(tokenizer) is None


def test_runs_of_unknown_characters_allow_no_proof() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(
        models.BPE(vocab={"<unk>": 0, "▁": 1, "a": 2}, merges=[], unk_token="<unk>", fuse_unk=True)
    )
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    assert rule_of(PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")) is None
