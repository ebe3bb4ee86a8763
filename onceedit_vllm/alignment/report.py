"""What an alignment is like, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict

from onceedit_vllm.alignment.cost import relative_map_flops, tokens_worth
from onceedit_vllm.alignment.dense import DenseMap
from onceedit_vllm.alignment.textual import TextualMap
from onceedit_vllm.config import MapKind, Matching

if TYPE_CHECKING:
    from onceedit_vllm.alignment.anchors import Anchors

#: Below this share of anchors that come back as themselves, the report warns.
FIDELITY_FLOOR = 0.999

AnyMap = TextualMap | DenseMap


class AlignmentReport(BaseModel):
    """The numbers behind one alignment.

    Attributes:
        num_anchors: A, the pair of EOS tokens included.
        kind: Kind of the relative maps.
        matching: How anchors were found.
        plugin_vocab_size: V_s, rows of the plug-in's map.
        llm_vocab_size: V_l, rows of the LLM's map.
        num_coordinates: C, the width of the relative space.
        round_trip_fidelity: Share of anchors whose column's largest entry, over the whole LLM
            vocabulary, is the anchor's own token: what the search gives back.
        self_mass_plugin: Median probability of an anchor in its own row of R_s.
        self_mass_llm: The same of R_l.
        bytes_held: Bytes of both maps in memory.
        bytes_dense: Bytes that both maps would take as float32 matrices over the anchors.
        tflops: What was computed for the relative maps now, counted the same way: 0 for ``textual``, which
            multiplies no matrices, and for maps from the cache.
        llm_tokens: How many tokens this LLM generates for ``tflops``; None where its parameters could
            not be counted.
        paper_tflops: What building the matrices costs (Eq. 25 and 26).
        paper_tokens: How many tokens this LLM generates for ``paper_tflops``; None likewise.
        seconds: Time this call took.
        from_cache: Whether the maps came from the cache.
        warnings: What a user should know, in sentences.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_anchors: int
    kind: MapKind
    matching: Matching
    plugin_vocab_size: int
    llm_vocab_size: int
    num_coordinates: int
    round_trip_fidelity: float
    self_mass_plugin: float
    self_mass_llm: float
    bytes_held: int
    bytes_dense: int
    tflops: float
    llm_tokens: float | None = None
    paper_tflops: float
    paper_tokens: float | None = None
    seconds: float
    from_cache: bool
    warnings: tuple[str, ...] = ()


def make_report(
    anchors: Anchors,
    plugin_map: AnyMap,
    llm_map: AnyMap,
    dims: tuple[int, int],
    *,
    llm_parameters: int | None = None,
    seconds: float,
    from_cache: bool,
    warnings: tuple[str, ...],
) -> AlignmentReport:
    """Measure a pair of maps.

    Args:
        anchors: A pairs.
        plugin_map: R_s.
        llm_map: R_l, of the same kind.
        dims: Embedding widths of plug-in and LLM.
        llm_parameters: Parameters of the LLM; None where they could not be counted.
        seconds: Time the alignment took.
        from_cache: Nothing was computed for the maps.
        warnings: Put first in the report.
    """
    sizes = (plugin_map.vocab_size, llm_map.vocab_size)
    fidelity = round_trip_fidelity(llm_map, anchors)
    if fidelity < FIDELITY_FLOOR:
        warnings = (
            *warnings,
            f"only {fidelity:.2%} of the anchors come back from the search as themselves: the others turn "
            f'into other tokens. Use kind="textual" (kind is "{llm_map.kind}").',
        )
    paper_flops = sum(relative_map_flops(v, len(anchors), d) for v, d in zip(sizes, dims, strict=True))
    flops = 0 if from_cache or llm_map.kind == "textual" else paper_flops
    return AlignmentReport(
        num_anchors=len(anchors),
        kind=llm_map.kind,
        matching=anchors.matching,
        plugin_vocab_size=sizes[0],
        llm_vocab_size=sizes[1],
        num_coordinates=llm_map.num_coordinates,
        round_trip_fidelity=fidelity,
        self_mass_plugin=median_self_mass(plugin_map, anchors.plugin_ids),
        self_mass_llm=median_self_mass(llm_map, anchors.llm_ids),
        bytes_held=plugin_map.bytes_held() + llm_map.bytes_held(),
        bytes_dense=4 * len(anchors) * sum(sizes),
        tflops=flops / 1e12,
        llm_tokens=tokens_worth(flops, llm_parameters),
        paper_tflops=paper_flops / 1e12,
        paper_tokens=tokens_worth(paper_flops, llm_parameters),
        seconds=seconds,
        from_cache=from_cache,
        warnings=warnings,
    )


def round_trip_fidelity(llm_map: AnyMap, anchors: Anchors) -> float:
    """Share of anchors j with ``argmax R_l[:, j]`` = the anchor's own token; exact."""
    if isinstance(llm_map, DenseMap):
        own = llm_map.own_token == anchors.llm_ids
    else:
        # One-hot rows: column j's largest entry is the lowest token whose coordinate is j.
        size = llm_map.vocab_size
        first = torch.full((llm_map.num_coordinates,), size, dtype=torch.int64)
        known = llm_map.coordinate >= 0
        first.scatter_reduce_(0, llm_map.coordinate[known], torch.arange(size)[known], "amin")
        own = first[: len(anchors)] == anchors.llm_ids
    return float(own.to(torch.float64).mean())


def median_self_mass(relative_map: AnyMap, anchor_ids: torch.Tensor) -> float:
    """Median over the anchors j of R[anchor_ids[j], j]."""
    if isinstance(relative_map, DenseMap):
        return float(relative_map.self_mass().median())
    own = relative_map.coordinate[anchor_ids] == torch.arange(len(anchor_ids))
    return float(own.to(torch.float32).median())
