"""Real tokenizers: four that serve as the plug-in's and as the LLM's, and more plug-ins'."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.plugin.textsync import TextSync
from tests.real_tokenizers import (
    gpt2_tokenizer,
    llama2_tokenizer,
    llama3_tokenizer,
    mistral_tokenizer,
    qwen_tokenizer,
)

REAL = ("smollm2", "gemma", "llama2", "gpt2")
MORE = ("mistral", "qwen", "llama3")
_MODELS = {"smollm2": "smollm2-135m", "gemma": "gemma-3-270m"}
_FROM_NPM: dict[str, Callable[[], Any]] = {
    "llama2": llama2_tokenizer,
    "gpt2": gpt2_tokenizer,
    "mistral": mistral_tokenizer,
    "qwen": qwen_tokenizer,
    "llama3": llama3_tokenizer,
}


def real_model_folder(name: str) -> Path:
    """The folder of a real model in the cache; skips the test where it is not there."""
    from onceedit_vllm.models import cached_model

    folder = cached_model(name)
    if folder is None:
        pytest.skip(f"{name} is not in the cache; get it with `onceedit models get {name}`")
    return folder


@cache
def real_tokenizer(name: str) -> Any:
    """A real tokenizer; skips the test where it cannot be had."""
    if name in _FROM_NPM:
        return _FROM_NPM[name]()
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(real_model_folder(_MODELS[name]))


@cache
def real_surface(name: str) -> Surface:
    """What the tokens of a real tokenizer stand for."""
    return Surface.of(real_tokenizer(name))


@cache
def _sync_of(plugin: str) -> TextSync:
    return TextSync(real_tokenizer(plugin), real_surface(plugin), max_context=10**6)


def real_sync(plugin: str, llm: str) -> TextSync:
    """A pair; the plug-in's side, costly for large vocabularies, is shared between pairs."""
    sync = copy.copy(_sync_of(plugin))
    sync.surface = real_surface(llm)
    return sync
