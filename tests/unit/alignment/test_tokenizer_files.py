from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from onceedit_vllm.alignment import tokenizer_files
from onceedit_vllm.alignment.tokenizer_files import files_fingerprint, load_tokenizer, tokenizer_fingerprint
from onceedit_vllm.errors import AlignmentError
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer, toy_sentencepiece_tokenizer


def test_equal_tokenizers_of_different_models_are_equal(tmp_path: Path) -> None:
    first = save_toy_model(tmp_path / "a", tokenizer=toy_bpe_tokenizer(), kind="llama", seed=0)
    second = save_toy_model(tmp_path / "b", tokenizer=toy_bpe_tokenizer(), kind="llama", seed=1)
    (second / "README.md").write_text("words")
    (second / "generation_config.json").write_text("{}")
    (second / "model.safetensors.index.json").write_text("{}")
    assert files_fingerprint(first) == files_fingerprint(second)


def test_whatever_changes_the_tokenizer_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizers = {
        "bpe": toy_bpe_tokenizer(),
        "smaller": toy_bpe_tokenizer(vocab_size=400),
        "weight": toy_bpe_tokenizer(extra_special=("[WEIGHT]",)),
        "no bos": toy_sentencepiece_tokenizer(add_bos=False),
        "bos": toy_sentencepiece_tokenizer(),
    }
    folders = [save_toy_model(tmp_path / name, tokenizer=t) for name, t in tokenizers.items()]
    prints = {files_fingerprint(folder) for folder in folders}
    assert len(prints) == 5
    folder = folders[0]
    for file, change in (
        ("tokenizer_config.json", {"eos_token": "Ġ"}),
        ("special_tokens_map.json", {"eos_token": "Ġ"}),
        ("added_tokens.json", {"more": 9}),
        ("config.json", {"model_type": "another"}),
    ):
        path = folder / file
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | change))
        prints.add(files_fingerprint(folder))
    monkeypatch.setattr(tokenizer_files, "version", lambda name: f"another {name}")
    prints.add(files_fingerprint(folder))
    assert len(prints) == 10


def test_a_loaded_tokenizer_is_told_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bpe = toy_bpe_tokenizer()
    loaded = load_tokenizer(save_toy_model(tmp_path / "a", tokenizer=bpe))
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(bpe)
    loaded("some text", truncation=True, max_length=4, padding="max_length")
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(bpe), "how batches are cut does not count"
    others = [
        toy_bpe_tokenizer(vocab_size=400),
        toy_bpe_tokenizer(extra_special=("[WEIGHT]",)),
        toy_sentencepiece_tokenizer(),
        toy_sentencepiece_tokenizer(dummy_prefix=False),
    ]
    prints = {tokenizer_fingerprint(tokenizer) for tokenizer in (bpe, *others)}
    loaded.eos_token = "Ġ"
    prints.add(tokenizer_fingerprint(loaded))
    loaded.add_tokens(["more text"])
    prints.add(tokenizer_fingerprint(loaded))
    monkeypatch.setattr(tokenizer_files, "version", lambda name: f"another {name}")
    assert len(prints | {tokenizer_fingerprint(bpe)}) == 8


class Slow:
    """A tokenizer without the Rust library behind it."""

    all_special_ids = (0,)
    eos_token_id = 0

    def __init__(self, *tokens: str) -> None:
        self._tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self._tokens)}


def test_a_slow_tokenizer_is_told_by_its_vocabulary() -> None:
    assert tokenizer_fingerprint(Slow("</s>", "a")) == tokenizer_fingerprint(Slow("</s>", "a"))
    assert tokenizer_fingerprint(Slow("</s>", "a")) != tokenizer_fingerprint(Slow("</s>", "b"))


def test_settings_of_the_model_that_are_not_the_tokenizers_do_not_count(tmp_path: Path) -> None:
    folder = save_toy_model(tmp_path / "a", tokenizer=toy_bpe_tokenizer())
    before = files_fingerprint(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))
    assert files_fingerprint(folder) == before


def test_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AlignmentError, match="not a model folder"):
        files_fingerprint(tmp_path)
    folder = save_toy_model(tmp_path / "a", tokenizer=toy_bpe_tokenizer())

    def refuse(file: Path) -> str:
        raise PermissionError(f"{file}: permission denied")

    monkeypatch.setattr(tokenizer_files, "sha256_of", refuse)
    with pytest.raises(AlignmentError, match=r"cannot be read .*permission denied"):
        files_fingerprint(folder)


def test_the_collector_runs_again_afterwards(tmp_path: Path) -> None:
    folder = save_toy_model(tmp_path / "a", tokenizer=toy_bpe_tokenizer())
    assert gc.isenabled()
    assert load_tokenizer(folder).get_vocab() == toy_bpe_tokenizer().get_vocab()
    assert gc.isenabled()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(AlignmentError, match="holds no tokenizer"):
        load_tokenizer(folder)
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(AlignmentError, match="holds no tokenizer"):
            load_tokenizer(folder)
        assert not gc.isenabled(), "who switched it off wants it off"
    finally:
        gc.enable()


def test_code_of_a_tokenizer_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_toy_model(tmp_path / "toy")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Planted", "auto_map": {"AutoTokenizer": ["planted.Planted", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever is at the terminal is not asked
    with pytest.raises(AlignmentError, match="trust_remote_code"):
        load_tokenizer(folder)
    assert not (tmp_path / "ran").exists()
