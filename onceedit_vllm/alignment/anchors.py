"""Anchors: the tokens that two vocabularies share (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import torch

from onceedit_vllm.alignment.surface import Surface, vocabulary_of
from onceedit_vllm.config import WEIGHT_TOKEN, Matching
from onceedit_vllm.errors import AlignmentError, BadInputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Anchors:
    """Pairs of token ids, one of each vocabulary; no id occurs twice.

    Attributes:
        plugin_ids: (A,) int64, ids of the plug-in, ascending.
        llm_ids: (A,) int64, the partners' ids of the LLM.
        matching: How the pairs were found.
    """

    plugin_ids: Tensor
    llm_ids: Tensor
    matching: Matching

    def __len__(self) -> int:
        return len(self.plugin_ids)


def find_anchors(
    plugin_tokenizer: Any, llm_tokenizer: Any, matching: Matching = "bytes", *, pair_eos: bool = False
) -> Anchors:
    """Pair the tokens that both vocabularies have.

    ``"string"`` is the paper's way: token strings equal once ``Ġ`` is written ``▁``, special tokens
    included. ``"bytes"`` pairs tokens that stand for the same bytes, whatever the spelling. The
    [WEIGHT] token is never an anchor.

    Args:
        plugin_tokenizer: A transformers tokenizer, or (string matching only) a dict of token to id.
        llm_tokenizer: The same for the LLM.
        matching: ``"bytes"`` or ``"string"``.
        pair_eos: Also pair the two end-of-sequence tokens, whatever they are called: without that
            pair a fused distribution could never end a text.

    Raises:
        AlignmentError: A vocabulary is empty, cannot be read as bytes, or shares no token.
        BadInputError: Unknown matching, or plain vocabularies where bytes are asked for.
    """
    if matching not in get_args(Matching):
        raise BadInputError(f"matching={matching!r} is unknown; use one of {', '.join(get_args(Matching))}")
    read = _by_string if matching == "string" else _by_bytes
    plugin, llm = read(plugin_tokenizer), read(llm_tokenizer)
    pairs = {plugin[text]: llm[text] for text in plugin.keys() & llm.keys()}
    if not pairs:
        raise AlignmentError("the two vocabularies share no token; check that both tokenizers are right")
    if pair_eos:
        _pair_by_role(pairs, _eos_id(plugin_tokenizer), _eos_id(llm_tokenizer))
    ordered = sorted(pairs.items())
    return Anchors(
        plugin_ids=torch.tensor([plugin_id for plugin_id, _ in ordered], dtype=torch.int64),
        llm_ids=torch.tensor([llm_id for _, llm_id in ordered], dtype=torch.int64),
        matching=matching,
    )


def _by_string(tokenizer: Any) -> Mapping[Any, int]:
    """Ids by normalised token string; a token spelt that way already goes before a rewritten one."""
    vocabulary = vocabulary_of(tokenizer)
    vocabulary.pop(WEIGHT_TOKEN, None)
    rewritten = {token.replace("Ġ", "▁"): index for token, index in vocabulary.items() if "Ġ" in token}
    return rewritten | {token: index for token, index in vocabulary.items() if "Ġ" not in token}


def _by_bytes(tokenizer: Any) -> Mapping[Any, int]:
    if isinstance(tokenizer, Surface):
        return tokenizer.id_of
    if isinstance(tokenizer, Mapping):
        raise BadInputError(
            'matching="bytes" needs tokenizers: a plain vocabulary does not say how its tokens spell bytes. '
            'Pass transformers tokenizers, or use matching="string".'
        )
    return Surface.of(tokenizer).id_of


def _eos_id(tokenizer: Any) -> int | None:
    eos = tokenizer.eos_id if isinstance(tokenizer, Surface) else getattr(tokenizer, "eos_token_id", None)
    return eos if isinstance(eos, int) else None


def _pair_by_role(pairs: dict[int, int], plugin_id: int | None, llm_id: int | None) -> None:
    """Make (plugin_id, llm_id) the one pair of both."""
    if plugin_id is None or llm_id is None:
        return
    for other in [key for key, value in pairs.items() if value == llm_id]:
        del pairs[other]
    pairs[plugin_id] = llm_id
