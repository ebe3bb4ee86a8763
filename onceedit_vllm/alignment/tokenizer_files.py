"""Telling tokenizers apart, by the files of a model's folder or loaded; and loading one."""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onceedit_vllm.alignment.checkpoint import read_config
from onceedit_vllm.alignment.surface import backend_of, vocabulary_of
from onceedit_vllm.errors import AlignmentError
from onceedit_vllm.folders import sha256_of

# Vocabularies, merges and settings have one of these endings; so do a few files that say nothing about
# the tokenizer. A file of another name counts: a needless rebuild is better than a wrong alignment.
_SUFFIXES = frozenset({".json", ".txt", ".model", ".tiktoken", ".vocab", ".bpe", ".codes", ".spm"})
_OTHERS = (
    "config.json",
    "generation_config.json",
    "*processor_config.json",
    "chat_template.json",
    "*.index.json",
    "onceedit_model.json",
)
# What transformers chooses the tokenizer's class by, besides the tokenizer's own files.
_CLASS_KEYS = ("architectures", "model_type", "tokenizer_class")


def files_fingerprint(folder: Path) -> str:
    """sha256 of all that decides what a folder's tokenizer is like: its files, and who reads them.

    Nothing is parsed: 36 MB of tokenizers take 0.03 s, where loading them takes seconds.

    Raises:
        AlignmentError: The folder is no model, or a file cannot be read.
    """
    config = read_config(folder)
    identity: dict[str, Any] = {"readers": _readers(), "class": [config.get(key) for key in _CLASS_KEYS]}
    try:
        identity["files"] = {file.name: sha256_of(file) for file in sorted(folder.iterdir()) if _counts(file)}
    except OSError as error:
        raise AlignmentError(
            f"the tokenizer in {folder} cannot be read ({error}); check that you may read its files"
        ) from error
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 of what a loaded tokenizer is: vocabulary, merges, steps, special tokens, end of sequence.

    However it was loaded, and from wherever. Takes 0.5 s for a vocabulary of 262144.
    """
    digest = hashlib.sha256(json.dumps([_readers(), getattr(tokenizer, "eos_token_id", None)]).encode())
    backend = backend_of(tokenizer)
    if backend is None:
        parts = (type(tokenizer).__qualname__, sorted(vocabulary_of(tokenizer).items()))
        digest.update(repr((*parts, sorted(tokenizer.all_special_ids))).encode())
        return digest.hexdigest()
    # All but how batches are cut and filled up, which is set by whoever encodes.
    for step in (backend.model, backend.normalizer, backend.pre_tokenizer, backend.decoder):
        digest.update(b"\0" if step is None else step.__getstate__())
    digest.update(repr(sorted(backend.get_added_tokens_decoder().items())).encode())
    return digest.hexdigest()


def _readers() -> dict[str, str]:
    return {name: version(name) for name in ("tokenizers", "transformers")}


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as transformers loads it from the folder alone, without code of the model's own.

    Raises:
        AlignmentError: transformers cannot load one.
    """
    from transformers import AutoTokenizer

    try:
        with _without_collector():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever the missing file leads to
        raise AlignmentError(
            f"{folder} holds no tokenizer that transformers can load ({type(error).__name__}: {error}); "
            "copy the model's tokenizer.json and tokenizer_config.json there"
        ) from error


def _counts(file: Path) -> bool:
    if file.suffix not in _SUFFIXES or any(fnmatch(file.name, other) for other in _OTHERS):
        return False
    return file.is_file()


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the collector of cycles.

    A vocabulary is parsed into a million small lists. The collector would walk all of them again and
    again, and find nothing: that is 1.4 of the 3.6 s of Gemma's tokenizer.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
