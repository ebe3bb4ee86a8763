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
from onceedit_vllm.alignment.dense import DenseMap, chunks
from onceedit_vllm.alignment.embeddings import load_embeddings
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.statistics import build_dense_map
from onceedit_vllm.alignment.textual import TextualMap, textual_maps
from onceedit_vllm.config import AlignmentConfig, MapKind
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
        maps = (self.alignment.plugin_map, self.alignment.llm_map)
        return {"V_s": maps[0].vocab_size, "V": maps[1].vocab_size, "A": len(self.alignment.anchors)}

    def bytes_dense(self) -> int:
        """Both relative maps as float32 matrices over the anchors, as the paper has them."""
        sizes = self.sizes
        return 4 * sizes["A"] * (sizes["V_s"] + sizes["V"])

    def matrices(self) -> Matrices:
        """The relative maps as matrices, made once."""
        if not self._matrices:
            maps = (self.alignment.plugin_map, self.alignment.llm_map)
            self._matrices.append(Matrices(*(matrix_of(each, self.device) for each in maps)))
        return self._matrices[0]

    def bytes_of_textual_maps(self) -> int:
        """The tables of textual maps; dense ones are counted where they are used."""
        maps = (self.alignment.plugin_map, self.alignment.llm_map)
        return sum(each.bytes_held() for each in maps if isinstance(each, TextualMap))


def matrix_of(relative_map: DenseMap | TextualMap, device: torch.device) -> Tensor:
    """A relative map as the paper has it: (V, C) float32 in memory."""
    matrix = torch.empty(relative_map.vocab_size, relative_map.num_coordinates, device=device)
    moved = relative_map.to(device)
    for ids in chunks(len(matrix), matrix.shape[1], device):
        matrix[ids] = moved.rows(ids)
    return matrix


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
    if kind == "textual":
        maps: tuple[Any, Any] = textual_maps(anchors, carry, llm_size)
    else:
        maps = (
            build_dense_map(kind, _embeddings(plugin_size, generator, device), plugin_ids.to(device)),
            build_dense_map(kind, _embeddings(llm_size, generator, device), llm_ids.to(device)),
        )
    alignment = Alignment(anchors, *maps, carry, Spellings.of({}), cast(Any, None))
    return Setup(f"V={llm_size} A={num_anchors} {kind}", alignment, device)


def _embeddings(size: int, generator: torch.Generator, device: torch.device) -> Tensor:
    common = torch.randn(_WIDTH, generator=generator)
    noise = torch.randn(size, _WIDTH, generator=generator)
    return noise.add_(_COMMON * common).to(device, torch.bfloat16)


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
    maps: tuple[Any, Any] = (alignment.plugin_map, alignment.llm_map)
    if isinstance(maps[0], DenseMap):
        ids = (anchors.plugin_ids, anchors.llm_ids)
        maps = tuple(  # type: ignore[assignment]
            build_dense_map(each.kind, each.embeddings, chosen)
            for each, chosen in zip(maps, ids, strict=True)
        )
    else:
        maps = textual_maps(anchors, alignment.carry, maps[1].vocab_size)
    return Alignment(anchors, *maps, alignment.carry, alignment.spellings, alignment.report)
