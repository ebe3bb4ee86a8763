"""What each token of a vocabulary stands for, as raw bytes.

Two spellings cover the tokenizers in use: byte-level BPE writes every byte as one printable
character (GPT-2's alphabet: a space is ``Ġ``), SentencePiece writes text with ``▁`` for a space and
falls back to ``<0xNN>`` for bytes it has no token for. Bytes are what the two have in common.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import Any, Literal

from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.errors import AlignmentError

Style = Literal["byte-level", "sentencepiece"]

_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_METASPACE = "▁"


@dataclass(frozen=True)
class Surface:
    """The text side of a tokenizer.

    Attributes:
        style: How the vocabulary spells bytes.
        token_bytes: Raw UTF-8 bytes by token id; None for special, control and unused ids. A
            token may hold part of a character.
        special_ids: Tokens that are never text.
        fallback_ids: SentencePiece's ``<0xNN>`` tokens.
        eos_id: End of sequence, None where the tokenizer names none.
        strips_prefix_space: Decoding a whole text drops one leading space (SentencePiece's dummy
            prefix).
    """

    style: Style
    token_bytes: list[bytes | None]
    special_ids: frozenset[int]
    fallback_ids: frozenset[int]
    eos_id: int | None
    strips_prefix_space: bool

    @classmethod
    def of(cls, tokenizer: Any) -> Surface:
        """Read a transformers tokenizer (fast or slow) or a ``tokenizers.Tokenizer``.

        Raises:
            AlignmentError: The tokenizer has no vocabulary, or spells its tokens in neither style.
        """
        vocabulary = vocabulary_of(tokenizer)
        layout = _layout(tokenizer)
        style = _style(layout, vocabulary)
        added = _added_tokens(tokenizer)
        special = frozenset(i for i, (text, flag) in added.items() if flag or text == WEIGHT_TOKEN)
        token_bytes: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
        fallback = set()
        for token, index in vocabulary.items():
            if index in special:
                continue
            if style == "byte-level":
                token_bytes[index] = token.encode() if index in added else byte_level_bytes(token)
            else:
                token_bytes[index] = sentencepiece_bytes(token)
                if _FALLBACK.fullmatch(token):
                    fallback.add(index)
        eos = getattr(tokenizer, "eos_token_id", None)
        return cls(
            style=style,
            token_bytes=token_bytes,
            special_ids=special,
            fallback_ids=frozenset(fallback),
            eos_id=eos if isinstance(eos, int) else None,
            strips_prefix_space=style == "sentencepiece" and _strips_prefix_space(layout),
        )

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id; ids in gaps stand for nothing."""
        return len(self.token_bytes)

    @cached_property
    def id_of(self) -> Mapping[bytes, int]:
        """The token of a byte string: a proper token before a ``<0xNN>`` one, then the lowest id."""
        ids: dict[bytes, int] = {}
        for index, text in enumerate(self.token_bytes):
            is_fallback = index in self.fallback_ids
            if text and (text not in ids or (ids[text] in self.fallback_ids and not is_fallback)):
                ids[text] = index
        return ids

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """The bytes of tokens; special ones, and ids without a token, have none."""
        return b"".join(self._pieces_of(ids))

    def without(self, ids: Iterable[int], start: int, end: int) -> list[int]:
        """Tokens without the bytes from `start` to `end` of their text; what is left of one is spelt anew.

        Raises:
            KeyError: A byte has no token.
        """
        tokens = list(ids)
        if start >= end:
            return tokens
        pieces = self._pieces_of(tokens)
        ends = list(accumulate(map(len, pieces)))
        first, last = bisect_right(ends, start), bisect_left(ends, end) + 1
        kept = tokens[:first]
        for text, stop in zip(pieces[first:last], ends[first:last], strict=True):
            at = stop - len(text)
            kept += self.spell(text[: max(0, start - at)] + text[max(0, end - at) :])
        return kept + tokens[max(first, last) :]

    def _pieces_of(self, ids: Iterable[int]) -> list[bytes]:
        tokens = list(ids)
        if not tokens or (min(tokens) >= 0 and max(tokens) < self.vocab_size):
            return list(map(self._pieces.__getitem__, tokens))
        return [self._pieces[token] if 0 <= token < self.vocab_size else b"" for token in tokens]

    @cached_property
    def _pieces(self) -> list[bytes]:
        return [piece or b"" for piece in self.token_bytes]

    def spell(self, text: bytes) -> list[int]:
        """The token of some bytes, or one for each of them.

        Raises:
            KeyError: A byte has no token.
        """
        whole = self.id_of.get(text)
        return [self.id_of[bytes((byte,))] for byte in text] if whole is None else [whole]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of a whole text: specials skipped, the dummy-prefix space dropped."""
        text = self.bytes_of(ids)
        return text[1:] if self.strips_prefix_space and text.startswith(b" ") else text


def vocabulary_of(tokenizer: Any) -> dict[str, int]:
    """Token strings to ids, added tokens included, of a tokenizer or a plain vocabulary.

    Raises:
        AlignmentError: There is no vocabulary to read, or it is empty.
    """
    if isinstance(tokenizer, Mapping):
        vocabulary = dict(tokenizer)
    elif callable(getattr(tokenizer, "get_vocab", None)):
        vocabulary = dict(tokenizer.get_vocab())
    else:
        raise AlignmentError(
            f"a {type(tokenizer).__name__} is no tokenizer: it has no get_vocab(). Pass a transformers "
            "tokenizer, a tokenizers.Tokenizer, or (string matching only) a dict of token to id."
        )
    if not vocabulary:
        raise AlignmentError("the tokenizer's vocabulary is empty: there is nothing to align")
    return vocabulary


@cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def byte_level_bytes(token: str) -> bytes:
    """Bytes of a byte-level token; a token outside the alphabet is literal text."""
    alphabet = byte_alphabet()
    try:
        return bytes(alphabet[character] for character in token)
    except KeyError:
        return token.encode()


def sentencepiece_bytes(token: str) -> bytes:
    """Bytes of a SentencePiece token: ``▁`` is a space, ``<0xNN>`` one byte."""
    match = _FALLBACK.fullmatch(token)
    if match:
        return bytes([int(match.group(1), 16)])
    return token.replace(_METASPACE, " ").encode()


def backend_of(tokenizer: Any) -> Any:
    """The ``tokenizers.Tokenizer`` behind a fast tokenizer; None for slow ones."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return backend if callable(getattr(backend, "to_str", None)) else None


def _layout(tokenizer: Any) -> dict[str, Any]:
    """The fast tokenizer's own JSON, only the steps around its model; empty for slow tokenizers."""
    backend = backend_of(tokenizer)
    steps = {name: getattr(backend, name, None) for name in ("normalizer", "pre_tokenizer", "decoder")}
    # What pickles a step is its JSON. `to_str` would write the whole vocabulary out with it.
    return {name: json.loads(step.__getstate__()) for name, step in steps.items() if step is not None}


def _steps(node: Any) -> Iterator[dict[str, Any]]:
    """Every step of a normalizer, pre-tokenizer or decoder, nested sequences unfolded."""
    if isinstance(node, dict):
        yield node
        for key in ("normalizers", "pretokenizers", "decoders"):
            for child in node.get(key) or ():
                yield from _steps(child)


def _style(layout: Mapping[str, Any], vocabulary: Mapping[str, int]) -> Style:
    decoder = list(_steps(layout.get("decoder")))
    steps = [*decoder, *_steps(layout.get("pre_tokenizer")), *_steps(layout.get("normalizer"))]
    if any(step["type"] == "ByteLevel" for step in steps):
        return "byte-level"
    if any(step["type"] in ("Metaspace", "ByteFallback") or _METASPACE in str(step) for step in steps):
        return "sentencepiece"
    if not decoder:
        # No hint in the layout (a slow tokenizer): the space marker in use decides.
        byte_level = sum(token.startswith("Ġ") for token in vocabulary)
        sentencepiece = sum(token.startswith(_METASPACE) for token in vocabulary)
        if byte_level != sentencepiece:
            return "byte-level" if byte_level > sentencepiece else "sentencepiece"
    raise AlignmentError(
        "the tokenizer is neither byte-level BPE nor SentencePiece, so its tokens cannot be read as bytes; "
        'use matching="string" or another model'
    )


def _added_tokens(tokenizer: Any) -> dict[int, tuple[str, bool]]:
    """Added tokens by id: their text, and whether they are special."""
    backend = backend_of(tokenizer)
    if backend is not None:
        decoder = backend.get_added_tokens_decoder()
    else:
        decoder = getattr(tokenizer, "added_tokens_decoder", {})
    added = {i: (str(token.content), bool(token.special)) for i, token in decoder.items()}
    if backend is None:
        for index in getattr(tokenizer, "all_special_ids", ()):
            added[index] = (added.get(index, ("", True))[0], True)
    return added


def _strips_prefix_space(layout: Mapping[str, Any]) -> bool:
    for step in _steps(layout.get("decoder")):
        if step["type"] == "Strip" and step.get("content") == " " and step.get("start", 0) > 0:
            return True
        if step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return True
    return False
