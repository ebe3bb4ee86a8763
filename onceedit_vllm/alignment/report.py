"""What an alignment is like, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict

from onceedit_vllm.alignment.cost import relative_map_flops, tokens_worth
from onceedit_vllm.config import MapKind, Matching

if TYPE_CHECKING:
    from onceedit_vllm.alignment.tables import Tables
    from onceedit_vllm.dense.pair import DenseMaps

#: Below this share of anchors that come back as themselves, the report warns.
FIDELITY_FLOOR = 0.999


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
        bytes_held: Bytes of what stands for both maps in memory.
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
    tables: Tables,
    sizes: tuple[int, int],
    widths: tuple[int, int],
    *,
    llm_parameters: int | None = None,
    seconds: float,
    from_cache: bool,
    warnings: tuple[str, ...] = (),
) -> AlignmentReport:
    """Measure an alignment.

    Args:
        tables: Its parts.
        sizes: V_s and V_l.
        widths: Of the embeddings of plug-in and LLM.
        llm_parameters: Parameters of the LLM; None where they could not be counted.
        seconds: Time the alignment took.
        from_cache: Nothing was computed for the maps.
        warnings: Put first in the report.
    """
    anchors = tables.anchors
    figures = _of_textual(tables, sizes[1]) if tables.dense is None else _of_dense(tables.dense)
    paper_flops = sum(relative_map_flops(v, len(anchors), d) for v, d in zip(sizes, widths, strict=True))
    flops = 0 if from_cache or tables.dense is None else paper_flops
    return AlignmentReport(
        num_anchors=len(anchors),
        matching=anchors.matching,
        plugin_vocab_size=sizes[0],
        llm_vocab_size=sizes[1],
        bytes_dense=4 * len(anchors) * sum(sizes),
        tflops=flops / 1e12,
        llm_tokens=tokens_worth(flops, llm_parameters),
        paper_tflops=paper_flops / 1e12,
        paper_tokens=tokens_worth(paper_flops, llm_parameters),
        seconds=seconds,
        from_cache=from_cache,
        warnings=warnings + _warnings(figures),
        **figures,
    )


def _of_textual(tables: Tables, llm_size: int) -> dict[str, Any]:
    """What depends on the kind. An LLM token has a coordinate of its own, an anchor's token the anchor's."""
    anchors, spellings = tables.anchors, tables.spellings
    own = tables.carry[anchors.plugin_ids] == anchors.llm_ids
    held = (tables.carry, spellings.tokens, spellings.ids, spellings.ends)
    return {
        "kind": "textual",
        "num_coordinates": llm_size,
        "round_trip_fidelity": len(anchors.llm_ids.unique()) / len(anchors),
        "self_mass_plugin": float(own.to(torch.float32).median()),
        "self_mass_llm": 1.0,
        "bytes_held": sum(tensor.nbytes for tensor in held),
    }


def _of_dense(dense: DenseMaps) -> dict[str, Any]:
    """The same of the kinds that are made of embeddings."""
    own = dense.llm_map.own_token == dense.llm_map.anchor_ids
    return {
        "kind": dense.kind,
        "num_coordinates": dense.llm_map.num_coordinates,
        "round_trip_fidelity": float(own.to(torch.float64).mean()),
        "self_mass_plugin": float(dense.plugin_map.self_mass().median()),
        "self_mass_llm": float(dense.llm_map.self_mass().median()),
        "bytes_held": dense.bytes_held(),
    }


def _warnings(figures: dict[str, Any]) -> tuple[str, ...]:
    fidelity = figures["round_trip_fidelity"]
    if fidelity >= FIDELITY_FLOOR:
        return ()
    return (
        f"only {fidelity:.2%} of the anchors come back from the search as themselves: the others turn "
        f'into other tokens. Use kind="textual" (kind is "{figures["kind"]}").',
    )
