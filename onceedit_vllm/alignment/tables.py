"""What an alignment computes once: made from two models, or brought back from the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.alignment.anchors import Anchors, find_anchors
from onceedit_vllm.alignment.dense import STATISTICS, DenseMap
from onceedit_vllm.alignment.report import AnyMap
from onceedit_vllm.alignment.side import Side
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.statistics import Progress, build_dense_map
from onceedit_vllm.alignment.textual import carry_table, textual_maps
from onceedit_vllm.config import AlignmentConfig, MapKind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Tables:
    """The parts of an alignment; see :class:`~onceedit_vllm.alignment.align.Alignment`."""

    anchors: Anchors
    carry: Tensor
    spellings: Spellings
    plugin_map: AnyMap
    llm_map: AnyMap

    def tensors(self) -> dict[str, Tensor]:
        """What the cache keeps, by name; the embeddings stay in the models' own files."""
        tensors = {
            "plugin_ids": self.anchors.plugin_ids,
            "llm_ids": self.anchors.llm_ids,
            "carry": self.carry,
            "spelling.tokens": self.spellings.tokens,
            "spelling.ids": self.spellings.ids,
            "spelling.ends": self.spellings.ends,
        }
        for name, relative_map in (("plugin", self.plugin_map), ("llm", self.llm_map)):
            if isinstance(relative_map, DenseMap):
                tensors |= {f"{name}.{key}": value for key, value in relative_map.statistics().items()}
        return tensors


def build_tables(plugin: Side, llm: Side, config: AlignmentConfig, advance: Progress) -> Tables:
    """Find anchors and spellings, and make the two maps.

    Raises:
        AlignmentError: A tokenizer is missing or unreadable, or the vocabularies share no token.
    """
    anchors = _anchors(plugin, llm, config)
    carry, spellings = carry_table(plugin.surface, llm.surface, llm.tokenizer, anchors, plugin.size)
    if config.kind == "textual":
        return Tables(anchors, carry, spellings, *textual_maps(anchors, carry, llm.size))
    for side in (plugin, llm):
        side.forget_text()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    maps = [
        build_dense_map(
            config.kind,
            side.table.to(device),
            ids.to(device),
            self_mass=config.self_mass,
            advance=advance,
        ).to(torch.device("cpu"))
        for side, ids in ((plugin, anchors.plugin_ids), (llm, anchors.llm_ids))
    ]
    return Tables(anchors, carry, spellings, maps[0], maps[1])


def restore_tables(
    tensors: dict[str, Tensor], plugin: Side, llm: Side, config: AlignmentConfig
) -> Tables | None:
    """The inverse of :meth:`Tables.tensors`; None where a tensor is missing."""
    try:
        anchors = Anchors(tensors["plugin_ids"], tensors["llm_ids"], config.matching)
        carry = tensors["carry"]
        spellings = Spellings(*(tensors[f"spelling.{name}"] for name in ("tokens", "ids", "ends")))
        if config.kind == "textual":
            return Tables(anchors, carry, spellings, *textual_maps(anchors, carry, llm.size))
        plugin_map = _dense_from(config.kind, "plugin", plugin.table, anchors.plugin_ids, tensors)
        llm_map = _dense_from(config.kind, "llm", llm.table, anchors.llm_ids, tensors)
    except KeyError:
        return None
    return Tables(anchors, carry, spellings, plugin_map, llm_map)


def _anchors(plugin: Side, llm: Side, config: AlignmentConfig) -> Anchors:
    # The LLM's tokenizer first: reading the larger of the two is the peak of memory.
    sources = [side.surface if config.matching == "bytes" else side.tokenizer for side in (llm, plugin)]
    found = find_anchors(sources[1], sources[0], config.matching, pair_eos=True)
    inside = (found.plugin_ids < plugin.size) & (found.llm_ids < llm.size)
    return Anchors(found.plugin_ids[inside], found.llm_ids[inside], found.matching)


def _dense_from(
    kind: MapKind, name: str, table: Tensor, anchor_ids: Tensor, tensors: dict[str, Tensor]
) -> DenseMap:
    statistics: dict[str, Any] = {key: tensors[f"{name}.{key}"] for key in STATISTICS}
    return DenseMap(kind=kind, embeddings=table, anchor_ids=anchor_ids, **statistics)
