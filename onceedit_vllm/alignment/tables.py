"""What an alignment computes once: made from two models, or brought back from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.alignment.anchors import Anchors, find_anchors
from onceedit_vllm.alignment.carry import carry_table
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.checks import check_tensor
from onceedit_vllm.dense.pair import DenseMaps

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.side import Side
    from onceedit_vllm.config import AlignmentConfig
    from onceedit_vllm.dense.statistics import Progress


class Tables(NamedTuple):
    """The parts of an alignment; see :class:`~onceedit_vllm.alignment.align.Alignment`."""

    anchors: Anchors
    carry: Tensor
    spellings: Spellings
    dense: DenseMaps | None

    def tensors(self) -> dict[str, Tensor]:
        """What the cache keeps, by name."""
        return {
            "plugin_ids": self.anchors.plugin_ids,
            "llm_ids": self.anchors.llm_ids,
            "carry": self.carry,
            "spelling.tokens": self.spellings.tokens,
            "spelling.ids": self.spellings.ids,
            "spelling.ends": self.spellings.ends,
        } | ({} if self.dense is None else self.dense.tensors())


def build_tables(plugin: Side, llm: Side, config: AlignmentConfig, advance: Progress) -> Tables:
    """Find anchors and spellings, and measure the maps of a dense kind.

    Raises:
        AlignmentError: A tokenizer is missing or unreadable, or the vocabularies share no token.
    """
    anchors = _anchors(plugin, llm, config)
    carry, spellings = carry_table(plugin.surface, llm.surface, llm.tokenizer, anchors, plugin.size)
    # End of sequence may be a token that the LLM has no logit for.
    carry.masked_fill_(carry >= llm.size, -1)
    if config.dense_kind is None:
        return Tables(anchors, carry, spellings, None)
    for side in (plugin, llm):
        side.forget_text()
    dense = DenseMaps.build(
        config.dense_kind,
        (plugin.table, llm.table),
        (anchors.plugin_ids, anchors.llm_ids),
        self_mass=config.self_mass,
        advance=advance,
    )
    return Tables(anchors, carry, spellings, dense)


def restore_tables(
    tensors: dict[str, Tensor], plugin: Side, llm: Side, config: AlignmentConfig
) -> Tables | None:
    """The inverse of :meth:`Tables.tensors`; None where a tensor is missing or cannot be of these models."""
    try:
        anchors = Anchors(tensors["plugin_ids"], tensors["llm_ids"], config.matching)
        _check_ids(anchors.plugin_ids, len(anchors), plugin.size)
        _check_ids(anchors.llm_ids, len(anchors), llm.size)
        carry = check_tensor(tensors["carry"], torch.int64, (plugin.size,), within=(-1, llm.size))
        spellings = Spellings(*(tensors[f"spelling.{name}"] for name in ("tokens", "ids", "ends")))
        _check_spellings(spellings, plugin.size, llm.size)
        if config.dense_kind is None:
            return Tables(anchors, carry, spellings, None)
        tables, anchor_ids = (plugin.table, llm.table), (anchors.plugin_ids, anchors.llm_ids)
        dense = DenseMaps.restore(config.dense_kind, tables, anchor_ids, tensors)
    except (KeyError, ValueError):
        return None
    return Tables(anchors, carry, spellings, dense)


def _anchors(plugin: Side, llm: Side, config: AlignmentConfig) -> Anchors:
    # The LLM's tokenizer first: reading the larger of the two is the peak of memory.
    sources = [side.surface if config.matching == "bytes" else side.tokenizer for side in (llm, plugin)]
    found = find_anchors(sources[1], sources[0], config.matching, pair_eos=True)
    inside = (found.plugin_ids < plugin.size) & (found.llm_ids < llm.size)
    return Anchors(found.plugin_ids[inside], found.llm_ids[inside], found.matching)


def _check_ids(ids: Tensor, count: int, size: int) -> None:
    check_tensor(ids, torch.int64, (count,), within=(0, size))
    if count == 0 or len(ids.unique()) < count:
        raise ValueError("there are no anchors, or a token is in two of them")


def _check_spellings(spellings: Spellings, plugin_size: int, llm_size: int) -> None:
    tokens, ids, ends = spellings.tokens, spellings.ids, spellings.ends
    check_tensor(tokens, torch.int64, (len(tokens),), within=(0, plugin_size))
    check_tensor(ids, torch.int64, (ids.numel(),), within=(0, llm_size))
    check_tensor(ends, torch.int64, (len(tokens),), within=(1, ids.numel() + 1))
    if len(ends) and (int(ends[-1]) != len(ids) or bool((ends.diff() < 1).any())):
        raise ValueError("the spellings do not fill their list")
