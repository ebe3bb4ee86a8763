"""Text in, plain tokens out, and the user's tokenizer left alone."""

from __future__ import annotations

import pytest

from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.plain_encoder import PlainEncoder
from onceedit_vllm.testing import toy_bpe_tokenizer, toy_sentencepiece_tokenizer
from tests.unit.plugin.zoo import ZOO, from_zoo


@pytest.mark.parametrize("special", [True, False])
def test_weight_token_is_never_read_out_of_text(special: bool) -> None:
    tokenizer = toy_bpe_tokenizer()
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["[WEIGHT]"]})
    else:
        tokenizer.add_tokens(["[WEIGHT]"])
    weight = tokenizer.convert_tokens_to_ids("[WEIGHT]")
    encoder = PlainEncoder(tokenizer)
    ids = encoder.encode("so [WEIGHT]!", at_start=True).ids
    assert weight not in ids
    assert tokenizer.decode(ids) == "so [WEIGHT]!"
    assert weight in tokenizer.encode("so [WEIGHT]!"), "the user's tokenizer was changed"


@pytest.mark.parametrize("name", ZOO)
def test_leading_ids(name: str) -> None:
    tokenizer = from_zoo(name)
    adds_bos = "sentencepiece" in name or name == "gemma"
    expected = (tokenizer.bos_token_id,) if adds_bos else ()
    assert PlainEncoder(tokenizer).leading_ids == expected


def test_trailing_specials_are_dropped() -> None:
    from tokenizers import processors

    tokenizer = toy_sentencepiece_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert tokenizer.encode("a")[-1] == 2
    assert PlainEncoder(tokenizer).leading_ids == (1,)


def test_a_continuation_has_no_dummy_prefix() -> None:
    encoder = PlainEncoder(from_zoo("sentencepiece"))
    whole = encoder.encode("the play", at_start=True).ids
    start = encoder.encode("the", at_start=True).ids
    assert start + encoder.encode(" play", at_start=False).ids == whole
    assert encoder.encode("the", at_start=False).ids != start


def test_characters_are_counted() -> None:
    encoder = PlainEncoder(from_zoo("byte-level"))
    before = encoder.num_characters
    encoder.encode("eleven more", at_start=True)
    assert encoder.num_characters == before + 11


def test_a_control_token_that_plain_text_can_spell_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((character, -2.0) for character in "a</s>")]
    core = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="</s>")
    with pytest.raises(ModelError, match="control token '</s>'"):
        PlainEncoder(tokenizer)


def test_truncation_of_the_users_tokenizer_does_not_matter() -> None:
    tokenizer = toy_bpe_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    encoder = PlainEncoder(tokenizer)
    assert len(encoder.encode("the play was written by a writer", at_start=True).ids) > 3
