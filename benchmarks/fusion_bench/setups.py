"""Pairs of vocabularies to fuse: invented ones of any size, and the two real models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from fusion_bench.naive import Matrices
from torch import Tensor

from onceedit_vllm.alignment.align import Alignment, align
from onceedit_vllm.alignment.anchors import Anchors
from onceedit_vllm.alignment.embeddings import load_embeddings
from onceedit_vllm.alignment.report import make_report
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.tables import Tables
from onceedit_vllm.config import AlignmentConfig, MapKind
from onceedit_vllm.dense.maps import DenseMap, chunks
from onceedit_vllm.dense.pair import DenseMaps
from onceedit_vllm.models import cached_model

# Width of the invented embeddings: that of SmolLM2-135M.
_WIDTH = 576
# How far all invented embeddings point one way; gives SmolLM2's mean cosine of 0.43.
_COMMON = 0.87
PLUGIN, LLM = "smollm2-135m", "gemma-3-270m"


@dataclass(frozen=True)
class Setup:
    """One pair of vocabularies with its relative maps.

    Attributes:
        name: For tables.
        alignment: What the product fuses with.
        device: Where the steps run.
    """

    name: str
    alignment: Alignment
    device: torch.device
    _matrices: list[Matrices] = field(default_factory=list)

    @property
    def sizes(self) -> dict[str, int]:
        """V_s, V_l and A."""
        report = self.alignment.report
        return {"V_s": report.plugin_vocab_size, "V": report.llm_vocab_size, "A": report.num_anchors}

    def matrices(self) -> Matrices:
        """The relative maps as matrices, made once."""
        if not self._matrices:
            dense = self.alignment.dense
            if dense is None:
                made = _textual_matrices(self.alignment.carry, self.sizes["V"], self.device)
            else:
                made = Matrices(*(matrix_of(each, self.device) for each in (dense.plugin_map, dense.llm_map)))
            self._matrices.append(made)
        return self._matrices[0]

    def bytes_of_textual_maps(self) -> int:
        """The tables of textual maps; dense ones are counted where they are used."""
        return self.alignment.report.bytes_held if self.alignment.dense is None else 0


def matrix_of(relative_map: DenseMap, device: torch.device) -> Tensor:
    """A relative map as the paper has it: (V, A) float32 in memory."""
    matrix = torch.empty(relative_map.vocab_size, relative_map.num_coordinates, device=device)
    moved = relative_map.to(device)
    for ids in chunks(len(matrix), matrix.shape[1], device):
        matrix[ids] = moved.rows(ids)
    return matrix


def _textual_matrices(carry: Tensor, llm_size: int, device: torch.device) -> Matrices:
    """R_s and R_l over one coordinate for every token of the LLM, in the order of its ids."""
    plugin = torch.zeros(len(carry), llm_size, device=device)
    known = (carry >= 0).nonzero()[:, 0]
    plugin[known.to(device), carry[known].to(device)] = 1.0
    return Matrices(plugin, torch.eye(llm_size, device=device))


def invented(
    kind: MapKind, *, plugin_size: int, llm_size: int, num_anchors: int, device: torch.device
) -> Setup:
    """Anisotropic random embeddings and a random pairing; every plug-in token has a place to go."""
    generator = torch.Generator().manual_seed(plugin_size + 3 * llm_size + 5 * num_anchors)
    plugin_ids = torch.randperm(plugin_size, generator=generator)[:num_anchors].sort().values
    llm_ids = torch.randperm(llm_size, generator=generator)[:num_anchors]
    anchors = Anchors(plugin_ids, llm_ids, "bytes")
    carry = torch.randint(0, llm_size, (plugin_size,), generator=generator)
    carry[plugin_ids] = llm_ids
    dense = None
    if kind != "textual":
        embeddings = [_embeddings(size, generator) for size in (plugin_size, llm_size)]
        dense = DenseMaps.build(kind, embeddings, (plugin_ids, llm_ids))
    alignment = _reported(Tables(anchors, carry, Spellings.of({}), dense), (plugin_size, llm_size))
    return Setup(f"V={llm_size} A={num_anchors} {kind}", alignment, device)


def _reported(tables: Tables, sizes: tuple[int, int]) -> Alignment:
    report = make_report(tables, sizes, (_WIDTH, _WIDTH), seconds=0.0, from_cache=False)
    return Alignment(*tables, report)


def _embeddings(size: int, generator: torch.Generator) -> Tensor:
    common = torch.randn(_WIDTH, generator=generator)
    noise = torch.randn(size, _WIDTH, generator=generator)
    return noise.add_(_COMMON * common).to(torch.bfloat16)


def real(
    kind: MapKind,
    device: torch.device,
    *,
    every: int = 1,
    cache: Path | None = None,
) -> Setup | None:
    """SmolLM2-135M and Gemma-3-270M, None where they are not cached.

    Args:
        kind: Of the maps; a dense kind is measured once, for minutes, and then cached.
        device: Where the steps run.
        every: Take every so many anchors only, so that the matrices fit into memory.
        cache: Where alignments are kept; the usual place by default.
    """
    plugin, llm = cached_model(PLUGIN), cached_model(LLM)
    if plugin is None or llm is None:
        return None
    settings = AlignmentConfig(kind=kind)
    alignment = align(cast(Any, _Unedited(plugin)), llm, config=settings, cache=cache, progress=True)
    if every > 1:
        alignment = _thinned(alignment, every)
    name = f"{plugin.name} / {llm.name}, A={len(alignment.anchors)} {kind}"
    return Setup(name, alignment, device)


@dataclass(frozen=True)
class _Unedited:
    """What `align` reads of a pack, for a plug-in without edits."""

    model_dir: Path

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(weight_token_id=len(self.base_embeddings()))

    def base_embeddings(self) -> Tensor:
        return load_embeddings(self.model_dir)


def _thinned(alignment: Alignment, every: int) -> Alignment:
    anchors = Anchors(alignment.anchors.plugin_ids[::every], alignment.anchors.llm_ids[::every], "bytes")
    dense, report = alignment.dense, alignment.report
    if dense is not None:
        embeddings = dense.plugin_map.embeddings, dense.llm_map.embeddings
        dense = DenseMaps.build(dense.kind, embeddings, (anchors.plugin_ids, anchors.llm_ids))
    tables = Tables(anchors, alignment.carry, alignment.spellings, dense)
    return _reported(tables, (report.plugin_vocab_size, report.llm_vocab_size))
