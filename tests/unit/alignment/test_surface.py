from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from onceedit_vllm.alignment.surface import (
    Surface,
    byte_alphabet,
    byte_level_bytes,
    sentencepiece_bytes,
)
from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.errors import AlignmentError
from onceedit_vllm.testing import toy_bpe_tokenizer, toy_sentencepiece_tokenizer

TOKENIZERS = {
    "byte-level": toy_bpe_tokenizer(),
    "sentencepiece": toy_sentencepiece_tokenizer(),
    "no dummy prefix": toy_sentencepiece_tokenizer(dummy_prefix=False),
}
SURFACES = {name: Surface.of(tokenizer) for name, tokenizer in TOKENIZERS.items()}

# SentencePiece cannot tell U+2581 from a space, and special tokens are no text.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁<"), max_size=40)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts)
def test_bytes_of_the_tokens_are_the_text(name: str, text: str) -> None:
    ids = TOKENIZERS[name].encode(text, add_special_tokens=True)
    assert SURFACES[name].decode_bytes(ids) == text.encode()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_style_specials_and_eos(name: str) -> None:
    tokenizer, surface = TOKENIZERS[name], SURFACES[name]
    assert surface.style == ("byte-level" if name == "byte-level" else "sentencepiece")
    assert surface.strips_prefix_space == (name == "sentencepiece")
    assert surface.eos_id == tokenizer.eos_token_id
    assert surface.vocab_size == len(tokenizer)
    assert surface.special_ids == set(tokenizer.all_special_ids)
    assert all(surface.token_bytes[i] is None for i in surface.special_ids)


def test_alphabet_covers_every_byte_once() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))
    assert byte_level_bytes("Ġthe") == b" the"
    assert byte_level_bytes("ĊĊ") == b"\n\n"
    assert byte_level_bytes("日") == "日".encode(), "outside the alphabet: literal"


def test_sentencepiece_spelling() -> None:
    assert sentencepiece_bytes("▁the") == b" the"
    assert sentencepiece_bytes("<0xE2>") == b"\xe2"
    assert sentencepiece_bytes("<0xE2>x") == b"<0xE2>x"
    assert sentencepiece_bytes("<0xGG>") == b"<0xGG>"


def test_added_tokens_are_literal_unless_special() -> None:
    tokenizer = toy_bpe_tokenizer()
    tokenizer.add_tokens([AddedToken("Ġé日", special=False)])
    tokenizer.add_tokens([AddedToken("<tool>", special=True), AddedToken(WEIGHT_TOKEN, special=False)])
    surface = Surface.of(tokenizer)
    ids: dict[str, int] = tokenizer.get_vocab()
    assert surface.token_bytes[ids["Ġé日"]] == "Ġé日".encode()
    assert surface.token_bytes[ids["<tool>"]] is None
    assert surface.token_bytes[ids[WEIGHT_TOKEN]] is None
    assert {ids["<tool>"], ids[WEIGHT_TOKEN]} <= surface.special_ids


def test_a_proper_token_goes_before_byte_fallback() -> None:
    tokenizer = toy_sentencepiece_tokenizer()
    tokenizer.add_tokens([AddedToken("\n", special=False)])
    surface = Surface.of(tokenizer)
    newline, fallback = (tokenizer.get_vocab()[token] for token in ("\n", "<0x0A>"))
    assert newline > fallback
    assert surface.id_of[b"\n"] == newline
    assert surface.token_bytes[fallback] == b"\n"


def test_ids_without_a_token_stand_for_nothing() -> None:
    tokenizer = Tokenizer(models.WordLevel({"Ġa": 0, "b": 5, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    surface = Surface.of(tokenizer)
    assert surface.vocab_size == 6
    assert [surface.token_bytes[i] for i in (0, 1, 5)] == [b" a", None, b"b"]
    assert surface.decode_bytes([0, 1, 5, 99, -1]) == b" ab"
    assert surface.eos_id is None


def test_slow_tokenizers_are_told_apart_by_their_marker() -> None:
    class Slow:
        eos_token_id = 2
        all_special_ids = (2,)

        def get_vocab(self) -> dict[str, int]:
            return {"▁the": 0, "cat": 1, "</s>": 2}

    surface = Surface.of(Slow())
    assert surface.style == "sentencepiece"
    assert surface.token_bytes == [b" the", b"cat", None]


def test_foreign_tokenizers_are_refused() -> None:
    wordpiece = Tokenizer(models.WordPiece({"[UNK]": 0, "##s": 1}, unk_token="[UNK]"))
    wordpiece.decoder = decoders.WordPiece()
    with pytest.raises(AlignmentError, match="neither byte-level"):
        Surface.of(wordpiece)
    with pytest.raises(AlignmentError, match="no get_vocab"):
        Surface.of(object())
    with pytest.raises(AlignmentError, match="empty"):
        Surface.of({})


@pytest.mark.parametrize("name", SURFACES)
def test_any_bytes_can_be_taken_out_of_a_text(name: str) -> None:
    surface, text = SURFACES[name], "The tower is in Rome, née Roma. 日本"
    ids = TOKENIZERS[name](text, add_special_tokens=False)["input_ids"]
    raw = surface.bytes_of(ids)
    for start in range(len(raw) + 1):
        for end in range(start, len(raw) + 1):
            assert surface.bytes_of(surface.without(ids, start, end)) == raw[:start] + raw[end:]
    assert surface.without(ids, 0, 0) == ids
    assert surface.without([99999, *ids], 0, 0) == [99999, *ids]
