"""Conversion: how a failing process is reported, and what is mended and checked of the result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from onceedit_vllm.errors import ModelError
from onceedit_vllm.models import Recipe, convert
from onceedit_vllm.models.recipes import CHECK_PROMPT
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer, toy_sentencepiece_tokenizer


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "toy",
        "title": "Toy",
        "requirements": (),
        "parts": "",
        "gguf_sha256": "",
        "download_bytes": 0,
        "adds_bos": False,
        "digits_alone": False,
        "licence": "none",
        "prompt_ids": (),
    }
    return Recipe(**(values | changes))


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """Make the converting process a shell script."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_stages_move_the_bar(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, tmp_path, "echo the weights; echo noise; echo the check; echo done; echo words >&2")
    convert.convert(recipe(), tmp_path / "toy.gguf", tmp_path / "out", progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Converting Toy" in captured.err
    assert "3/3" in captured.err
    assert "words" not in captured.err


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (r"printf 'one\n\ntwo\nthree\nfour\n' >&2; exit 1", r"failed:\n  two\n  three\n  four\n"),
        ("kill -9 $$", r"ended with status -9 \(out of memory\?\)"),
    ],
)
def test_a_failure_says_the_last_words_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, said: str
) -> None:
    stand_in(monkeypatch, tmp_path, body)
    with pytest.raises(ModelError, match=said) as caught:
        convert.convert(recipe(), tmp_path / "toy.gguf", tmp_path / "out", progress=False)
    assert "toy: converting" in str(caught.value)
    assert "onceedit doctor" in str(caught.value)


def test_digits_are_split_where_the_recipe_says_so() -> None:
    tokenizer = toy_bpe_tokenizer(["1999 1999 1999"])
    assert "1999" in tokenizer.tokenize("1999")
    convert._mend_tokenizer(tokenizer, recipe())
    assert "1999" in tokenizer.tokenize("1999")
    convert._mend_tokenizer(tokenizer, recipe(digits_alone=True))
    assert tokenizer.tokenize("1999") == list("1999")


@pytest.mark.parametrize("nfc", [True, False])
def test_text_is_composed_where_the_recipe_says_so(tmp_path: Path, nfc: bool) -> None:
    tokenizer = toy_bpe_tokenizer(["caf\u00e9"])
    convert._mend_tokenizer(tokenizer, recipe(nfc=nfc))
    tokenizer.save_pretrained(tmp_path)
    saved = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert (saved.encode("cafe\u0301").ids == saved.encode("caf\u00e9").ids) == nfc


def test_names_of_rows_without_a_token_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    right = toy_bpe_tokenizer(["The city"]).backend_tokenizer
    layout = json.loads(right.to_str())
    size = right.get_vocab_size()
    layout["model"]["vocab"] |= {f"[PAD{index}]": index for index in (size, size + 1)}
    file.write_text(json.dumps(layout), encoding="utf-8")
    assert Tokenizer.from_file(str(file)).get_vocab_size() == size + 2
    convert._drop_made_up_tokens(file, size)
    assert Tokenizer.from_file(str(file)).to_str() == right.to_str()


@pytest.mark.parametrize("adds_bos", [True, False])
def test_the_leading_bos_is_as_the_recipe_says_and_survives_saving(tmp_path: Path, adds_bos: bool) -> None:
    from transformers import AutoTokenizer

    tokenizer = toy_sentencepiece_tokenizer(add_bos=not adds_bos)
    convert._mend_tokenizer(tokenizer, recipe(adds_bos=adds_bos))
    tokenizer.save_pretrained(tmp_path)
    convert._write_bos_setting(tmp_path / "tokenizer_config.json", adds_bos)
    ids = AutoTokenizer.from_pretrained(tmp_path)("The city")["input_ids"]
    assert (ids[0] == tokenizer.bos_token_id) == adds_bos


def test_the_setting_of_bos_replaces_what_names_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer_config.json"
    file.write_text(
        json.dumps({"is_local": True, "local_files_only": False, "add_bos_token": None, "x": "é"})
    )
    convert._write_bos_setting(file, True)
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "add_bos_token": True,
        "add_eos_token": False,
        "x": "é",
    }


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Recipe]:
    """A folder that passes the check, and its recipe."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = save_toy_model(tmp_path / "toy")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ids = tokenizer(CHECK_PROMPT)["input_ids"]
    with torch.inference_mode():
        answer = tokenizer.decode(model(torch.tensor([ids])).logits[0, -1].argmax())
    monkeypatch.setattr(convert, "CHECK_ANSWER", answer)
    return folder, recipe(prompt_ids=tuple(ids))


def test_the_check_passes_what_works(toy: tuple[Path, Recipe]) -> None:
    convert._check(*toy)


def test_the_check_refuses_other_ids(toy: tuple[Path, Recipe]) -> None:
    folder, right = toy
    with pytest.raises(ModelError, match=r"encodes to .*, expected \[1, 2\]"):
        convert._check(folder, right._replace(prompt_ids=(1, 2)))


def test_the_check_refuses_another_answer(toy: tuple[Path, Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "CHECK_ANSWER", " Paris")
    with pytest.raises(ModelError, match="expected ' Paris'"):
        convert._check(*toy)


def test_the_check_refuses_another_end(toy: tuple[Path, Recipe]) -> None:
    folder, _ = toy
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 5}))
    with pytest.raises(ModelError, match="generation ends at 5"):
        convert._check(*toy)
