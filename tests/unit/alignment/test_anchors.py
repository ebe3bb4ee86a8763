from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from onceedit_vllm.alignment.anchors import Anchors, find_anchors
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.config import WEIGHT_TOKEN, Matching
from onceedit_vllm.errors import AlignmentError, BadInputError
from onceedit_vllm.testing import toy_bpe_tokenizer, toy_sentencepiece_tokenizer

vocabularies = st.lists(
    st.text(alphabet="abĠ▁", min_size=1, max_size=3), min_size=1, max_size=12, unique=True
).map(lambda tokens: {token: i for i, token in enumerate(tokens)})


def pairs(anchors: Anchors) -> dict[int, int]:
    return dict(zip(anchors.plugin_ids.tolist(), anchors.llm_ids.tolist(), strict=True))


def test_string_matching_rewrites_the_space_marker() -> None:
    plugin = {"Ġthe": 0, "cat": 1, "only": 2, WEIGHT_TOKEN: 3}
    llm = {"▁the": 7, "cat": 4, "other": 5, WEIGHT_TOKEN: 6}
    anchors = find_anchors(plugin, llm, "string")
    assert pairs(anchors) == {0: 7, 1: 4}
    assert len(anchors) == 2
    assert anchors.matching == "string"


def test_a_token_spelt_so_goes_before_a_rewritten_one() -> None:
    for plugin in ({"Ġ": 0, "▁": 1}, {"▁": 1, "Ġ": 0}):
        assert pairs(find_anchors(plugin, {"▁": 0}, "string")) == {1: 0}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plugin=vocabularies, llm=vocabularies)
def test_string_anchors_are_the_common_spellings(plugin: dict[str, int], llm: dict[str, int]) -> None:
    def spellings(vocabulary: dict[str, int]) -> set[str]:
        return {token.replace("Ġ", "▁") for token in vocabulary}

    common = spellings(plugin) & spellings(llm)
    if not common:
        with pytest.raises(AlignmentError, match="share no token"):
            find_anchors(plugin, llm, "string")
        return
    anchors = find_anchors(plugin, llm, "string")
    assert len(anchors) == len(common) == len(set(anchors.llm_ids.tolist()))
    names, partners = ({i: t for t, i in v.items()} for v in (plugin, llm))
    for left, right in pairs(anchors).items():
        assert names[left].replace("Ġ", "▁") == partners[right].replace("Ġ", "▁")
    assert anchors.plugin_ids.tolist() == sorted(anchors.plugin_ids.tolist())


def test_byte_anchors_stand_for_equal_bytes() -> None:
    plugin, llm = toy_bpe_tokenizer(), toy_sentencepiece_tokenizer()
    plugin.add_special_tokens({"additional_special_tokens": [WEIGHT_TOKEN]})
    anchors = find_anchors(plugin, llm)
    left, right = Surface.of(plugin), Surface.of(llm)
    assert len(anchors) == len(left.id_of.keys() & right.id_of.keys()) > 256
    for a, b in pairs(anchors).items():
        assert left.token_bytes[a] == right.token_bytes[b] is not None
    assert plugin.convert_tokens_to_ids(WEIGHT_TOKEN) not in pairs(anchors)
    assert len(find_anchors(plugin, llm, "string")) < len(anchors)


def test_weight_is_no_anchor_even_between_edited_models() -> None:
    edited = toy_bpe_tokenizer()
    edited.add_tokens([AddedToken(WEIGHT_TOKEN, special=False)])
    weight = edited.convert_tokens_to_ids(WEIGHT_TOKEN)
    for matching in ("bytes", "string"):
        assert weight not in pairs(find_anchors(edited, edited, matching))


@pytest.mark.parametrize("matching", ["bytes", "string"])
def test_end_of_sequence_is_paired_by_role(matching: Matching) -> None:
    plugin, llm = toy_bpe_tokenizer(), toy_sentencepiece_tokenizer()
    plain = pairs(find_anchors(plugin, llm, matching))
    paired = pairs(find_anchors(plugin, llm, matching, pair_eos=True))
    assert plugin.eos_token_id not in plain
    assert paired == plain | {plugin.eos_token_id: llm.eos_token_id}


def test_the_role_goes_before_the_name() -> None:
    class Chat:
        def __init__(self, eos: int) -> None:
            self.eos_token_id = eos

        def get_vocab(self) -> dict[str, int]:
            return {"<|im_end|>": 0, "<|endoftext|>": 1, "a": 2}

    assert pairs(find_anchors(Chat(0), Chat(1), "string", pair_eos=True)) == {0: 1, 2: 2}


def test_bad_arguments() -> None:
    with pytest.raises(BadInputError, match="unknown; use one of bytes, string"):
        find_anchors({"a": 0}, {"a": 0}, "Bytes")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="plain vocabulary"):
        find_anchors({"a": 0}, {"a": 0}, "bytes")
    with pytest.raises(AlignmentError, match="empty"):
        find_anchors({}, {"a": 0}, "string")
