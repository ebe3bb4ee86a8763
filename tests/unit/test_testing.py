"""The toys: deterministic, lossless, loadable."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.testing import (
    ToyKind,
    save_toy_model,
    toy_bpe_tokenizer,
    toy_causal_lm,
    toy_sentencepiece_tokenizer,
)

TEXTS = [
    "The capital of France is",
    " leading and  double spaces ",
    "café 日本語 👩‍👩‍👧 é\u0301",
    "tab\tand\nnewline",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_bpe_is_lossless(text: str) -> None:
    tokenizer = toy_bpe_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < len(tokenizer) for token in ids)


@pytest.mark.parametrize("dummy_prefix", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_sentencepiece_is_lossless(text: str, dummy_prefix: bool) -> None:
    tokenizer = toy_sentencepiece_tokenizer(dummy_prefix=dummy_prefix)
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_sentencepiece_falls_back_to_bytes_and_merges_words() -> None:
    tokenizer = toy_sentencepiece_tokenizer(add_bos=False)
    assert tokenizer.tokenize("👍")[-4:] == ["<0xF0>", "<0x9F>", "<0x91>", "<0x8D>"]
    assert "▁capital" in tokenizer.tokenize("The capital")
    assert tokenizer("The")["input_ids"][0] != tokenizer.bos_token_id


def test_tokenizers_are_deterministic() -> None:
    for build in (toy_bpe_tokenizer, toy_sentencepiece_tokenizer):
        assert build().get_vocab() == build().get_vocab()


def test_extra_special_tokens_are_not_split() -> None:
    tokenizer = toy_bpe_tokenizer(extra_special=["[X]"])
    assert tokenizer("a[X]b")["input_ids"].count(1) == 1


@pytest.mark.parametrize("kind", get_args(ToyKind))
def test_models_are_deterministic_and_varied(kind: ToyKind) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (toy_causal_lm(300, kind=kind, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    ids = torch.arange(1, 40)[None]
    with torch.no_grad():
        logits, same, different = (model(ids).logits for model in (first, again, other))
    assert torch.equal(logits, same)
    assert not torch.allclose(logits, different)
    assert logits.shape == (1, 39, 300)
    assert len(logits.argmax(-1).unique()) > 5


@pytest.mark.parametrize("kind", get_args(ToyKind))
def test_saved_folder_reloads_equal(kind: ToyKind, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_toy_model(tmp_path / "toy", kind=kind, seed=3)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    reference = toy_causal_lm(len(tokenizer), kind=kind, seed=3)
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.allclose(model(ids).logits, reference(ids).logits, atol=1e-6)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    if kind == "gemma3":
        assert ids[0, 0] == tokenizer.bos_token_id


def test_unknown_kind_is_refused() -> None:
    kind: Any = "bert"
    with pytest.raises(BadInputError, match="'llama'"):
        toy_causal_lm(10, kind=kind)


@pytest.mark.parametrize("kind", get_args(ToyKind))
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_tied_on_request(kind: ToyKind, tied: bool) -> None:
    model: Any = toy_causal_lm(100, kind=kind, tied=tied)
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (inputs is outputs) == tied
