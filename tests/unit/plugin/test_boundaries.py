"""Where a text may be cut, by the structure of its tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from onceedit_vllm.plugin.boundaries import BigramCuts, RegexCuts, last_cut
from onceedit_vllm.plugin.plain_encoder import PlainEncoder
from tests.unit.plugin.zoo import UNPROVEN, ZOO, from_zoo


def rule_of(tokenizer: Any) -> Any:
    return PlainEncoder(tokenizer).cut_rule


@pytest.mark.parametrize("name", ZOO)
def test_kind_of_rule(name: str) -> None:
    kind = (
        type(None) if name in UNPROVEN else BigramCuts if "sentence" in name or name == "gemma" else RegexCuts
    )
    assert isinstance(rule_of(from_zoo(name)), kind)


@pytest.mark.parametrize(
    ("name", "left", "right", "allowed"),
    [
        ("byte-level", "e", " ", True),
        ("byte-level", " ", "e", False),
        ("byte-level", "\n", "e", False),  # the look-ahead behind whitespace sees the e
        ("byte-level", "'", "s", False),
        ("byte-level", "語", "。", True),
        ("byte-level", "😀", " ", False),  # newer than the table both sides agree on
        ("byte-level, added text", "e", " ", False),
        ("byte-level, added text", "s", " ", True),
        ("byte-level, added text", ".", "\n", False),
        ("byte-level", "e", "\u0301", True),
        ("qwen", "e", "\u0301", False),
        ("qwen", "\u0301", " ", False),
        ("qwen", "e", " ", True),
        ("sentencepiece", "e", " ", True),
        ("sentencepiece", " ", "t", False),
        ("sentencepiece", "中", "\n", True),
        ("gemma", "\n", "\n", False),
        ("gemma", " ", " ", False),
        ("gemma", "a", " ", False),
    ],
)
def test_rules(name: str, left: str, right: str, allowed: bool) -> None:
    assert rule_of(from_zoo(name)).allows(left, right) is allowed


def test_last_cut_looks_no_further_back_than_asked() -> None:
    rule = rule_of(from_zoo("byte-level"))
    assert last_cut(rule, "one two three", 0) == 7
    assert last_cut(rule, "one two three", 7) == 7
    assert last_cut(rule, "one two three", 8) == 0
    assert last_cut(rule, "one", 0) == last_cut(rule, "", 0) == 0


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
