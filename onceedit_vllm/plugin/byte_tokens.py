"""The plug-in's tokens for bytes that are no character yet."""

from __future__ import annotations

from typing import NamedTuple

from tokenizers import Tokenizer, models

from onceedit_vllm.alignment.surface import byte_alphabet
from onceedit_vllm.plugin.boundaries import steps_of


class ByteTokens(NamedTuple):
    """The tokens of single bytes, and how they join with the text before them.

    Attributes:
        core: The plug-in's tokenizer, which reads no special token out of text.
        ids: By byte; None for those without a token, as tokenizers have that never met them.
        letters: How a byte-level tokenizer spells each byte; None for one that falls back to `<0xNN>`, whose
            bytes are never merged.
    """

    core: Tokenizer
    ids: tuple[int | None, ...]
    letters: tuple[str, ...] | None

    def join(self, text: str, ids: list[int], begun: bytes) -> list[int] | None:
        """The tokens of a text and of some bytes behind it; None where one of these has none.

        Args:
            text: Whole characters.
            ids: Its tokens.
            begun: Bytes of the next character.
        """
        behind = [index for byte in begun if (index := self.ids[byte]) is not None]
        if len(behind) < len(begun):
            return None
        alone = [*ids, *behind]
        if self.letters is None:
            return alone
        last = self._last_piece(text)
        before = [token.id for token in self.core.model.tokenize(last)]
        if before != ids[len(ids) - len(before) :]:
            return alone
        spelled = last + "".join(self.letters[byte] for byte in begun)
        return [*ids[: len(ids) - len(before)], *(token.id for token in self.core.model.tokenize(spelled))]

    def _last_piece(self, text: str) -> str:
        """What the tokenizer's model gets last of a text; merges do not reach beyond."""
        plain = self.core.normalizer.normalize_str(text) if self.core.normalizer else text
        pieces = self.core.pre_tokenizer.pre_tokenize_str(plain) if plain else []
        return pieces[-1][0] if pieces else ""


def byte_tokens_of(core: Tokenizer) -> ByteTokens | None:
    """The byte tokens of a BPE tokenizer; None where it has none."""
    if not isinstance(core.model, models.BPE):
        return None
    if any(step["type"] == "ByteLevel" for step in steps_of(core.pre_tokenizer)):
        letter_of = {byte: letter for letter, byte in byte_alphabet().items()}
        letters = tuple(letter_of[byte] for byte in range(256))
        return _of(core, letters, letters)
    return _of(core, tuple(f"<0x{byte:02X}>" for byte in range(256)), None)


def _of(core: Tokenizer, tokens: tuple[str, ...], letters: tuple[str, ...] | None) -> ByteTokens | None:
    ids = tuple(core.token_to_id(token) for token in tokens)
    return ByteTokens(core, ids, letters) if any(index is not None for index in ids) else None
