"""How the LLM writes the plug-in's tokens that it has no single token for.

About 6 % of SmolLM2's tokens have no byte-equal partner in Gemma's vocabulary. Their probability is
carried to the first LLM token of their text; without remembering the rest, the answer could turn
into another one that begins alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.surface import Surface

#: Longest spelling that is followed, in LLM tokens; of a longer one only the beginning is kept.
LONGEST = 5


@dataclass(frozen=True)
class Spellings:
    """Plug-in tokens without a partner, each with the LLM tokens that spell it.

    Attributes:
        tokens: (m,) int64, plug-in tokens.
        ids: (total,) int64, their LLM tokens one after another.
        ends: (m,) int64, where each token's LLM tokens end in ``ids``.
    """

    tokens: Tensor
    ids: Tensor
    ends: Tensor

    @classmethod
    def of(cls, spelt: dict[int, list[int]]) -> Spellings:
        """From plug-in token -> LLM tokens."""
        sizes = torch.tensor([len(ids) for ids in spelt.values()], dtype=torch.int64)
        flat = [token for ids in spelt.values() for token in ids]
        return cls(
            torch.tensor(list(spelt), dtype=torch.int64),
            torch.tensor(flat, dtype=torch.int64),
            sizes.cumsum(0),
        )

    def as_lists(self) -> dict[int, list[int]]:
        """Plug-in token -> LLM tokens."""
        pieces = self.ids.tensor_split(self.ends[:-1]) if len(self.tokens) else ()
        return {int(t): p.tolist() for t, p in zip(self.tokens, pieces, strict=True)}


def spell(texts: dict[int, bytes], llm: Surface, llm_tokenizer: Any) -> dict[int, list[int]]:
    """Spell texts with LLM tokens, as the LLM's tokenizer cuts them where that gives the text back.

    Args:
        texts: Plug-in token -> its bytes.
        llm: The LLM's surface.
        llm_tokenizer: The LLM's tokenizer.

    Returns:
        Plug-in token -> LLM tokens, at least one and at most :data:`LONGEST`; texts that no LLM token
        begins are left out.
    """
    whole = {index: text.decode() for index, text in texts.items() if _is_utf8(text)}
    cut: dict[int, list[int]] = {}
    if whole:
        encoded = llm_tokenizer(list(whole.values()), add_special_tokens=False)["input_ids"]
        cut = dict(zip(whole, encoded, strict=True))
    longest = max(map(len, llm.id_of), default=0)
    spelt: dict[int, list[int]] = {}
    for index, text in texts.items():
        ids = cut.get(index, [])
        if _bytes_of(ids, llm) != text:
            # Half a character, or a dummy prefix in the way: longest tokens first.
            ids = _spell_greedily(text, llm, longest)
        if ids:
            spelt[index] = ids[:LONGEST]
    return spelt


def _bytes_of(ids: list[int], llm: Surface) -> bytes | None:
    pieces = [llm.token_bytes[i] if 0 <= i < llm.vocab_size else None for i in ids]
    return None if None in pieces else b"".join(piece for piece in pieces if piece is not None)


def _spell_greedily(text: bytes, llm: Surface, longest: int) -> list[int]:
    ids: list[int] = []
    while text:
        sizes = range(min(len(text), longest), 0, -1)
        size = next((size for size in sizes if text[:size] in llm.id_of), None)
        if size is None:
            break
        ids.append(llm.id_of[text[:size]])
        text = text[size:]
    return ids


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
