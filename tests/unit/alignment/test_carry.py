from __future__ import annotations

import torch
from tokenizers import AddedToken

from onceedit_vllm.alignment.anchors import Anchors, find_anchors
from onceedit_vllm.alignment.carry import carry_table
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.testing import toy_bpe_tokenizer, toy_sentencepiece_tokenizer


def make_carry(plugin: object, llm: object, size: int) -> tuple[torch.Tensor, Surface, Surface]:
    anchors = find_anchors(plugin, llm, pair_eos=True)
    left, right = Surface.of(plugin), Surface.of(llm)
    return carry_table(left, right, llm, anchors, size)[0], left, right


def test_carry_goes_to_equal_bytes_or_to_the_first_token_of_the_text() -> None:
    plugin, llm = toy_bpe_tokenizer(), toy_sentencepiece_tokenizer(vocab_size=300)
    plugin.add_special_tokens({"additional_special_tokens": [WEIGHT_TOKEN]})
    carry, left, right = make_carry(plugin, llm, len(plugin) + 3)
    unequal = 0
    for index, text in enumerate(left.token_bytes):
        partner = right.token_bytes[carry[index]] if carry[index] >= 0 else None
        if text is None:
            continue
        assert partner is not None
        assert text.startswith(partner)
        if text in right.id_of:
            assert carry[index] == right.id_of[text]
        unequal += text != partner
    assert unequal > 0
    assert carry[plugin.eos_token_id] == llm.eos_token_id
    assert carry[plugin.convert_tokens_to_ids(WEIGHT_TOKEN)] == -1
    assert (carry[len(plugin) :] == -1).all(), "padding"


def test_first_token_is_as_the_llm_cuts_the_text() -> None:
    plugin = toy_bpe_tokenizer()
    plugin.add_tokens([AddedToken("tower of Rome", special=False)])
    llm = toy_sentencepiece_tokenizer(dummy_prefix=False)
    carry, _, right = make_carry(plugin, llm, len(plugin))
    index = plugin.convert_tokens_to_ids("tower of Rome")
    assert carry[index] == llm("tower of Rome", add_special_tokens=False)["input_ids"][0]
    assert b"tower of Rome" not in right.id_of


def test_a_dummy_prefix_does_not_hide_the_first_token() -> None:
    plugin = toy_bpe_tokenizer()
    plugin.add_tokens([AddedToken("tower of Rome", special=False)])
    llm = toy_sentencepiece_tokenizer(dummy_prefix=True)
    carry, _, right = make_carry(plugin, llm, len(plugin))
    partner = right.token_bytes[carry[plugin.convert_tokens_to_ids("tower of Rome")]]
    assert partner is not None
    assert b"tower of Rome".startswith(partner)


def test_broken_bytes_go_to_their_longest_prefix() -> None:
    plugin = toy_bpe_tokenizer()
    llm = toy_sentencepiece_tokenizer()
    left, right = Surface.of(plugin), Surface.of(llm)
    left.token_bytes[300] = b"\xe6\x97"  # two thirds of a character
    anchors = find_anchors(plugin, llm)
    anchors = Anchors(anchors.plugin_ids[:5], anchors.llm_ids[:5], "bytes")
    carry, _ = carry_table(left, right, llm, anchors, len(plugin))
    assert right.token_bytes[carry[300]] == b"\xe6"
