"""The one pass over a dense relative map: normalisers, and the extremes of each row and column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from onceedit_vllm.dense.maps import NUM_PEAKS, DenseMap, chunks
from onceedit_vllm.largest import top_k

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.config import DenseKind

# Anchors whose rows the temperature of `calibrated` is found on, evenly spaced.
_CALIBRATION_ROWS = 512
# DeePEn's temperature.
_DEEPEN_SCALE = 100.0

Progress = Callable[[int], None]


def build_dense_map(
    kind: DenseKind,
    embeddings: Tensor,
    anchor_ids: Tensor,
    *,
    self_mass: float = 0.9,
    advance: Progress = lambda rows: None,
) -> DenseMap:
    """Make a map of one of the dense kinds, in float32, V x A work in chunks.

    Args:
        kind: ``eq16`` (scale 1), ``deepen`` (100 / |row of cosines|) or ``calibrated``.
        embeddings: (V, d), kept as given.
        anchor_ids: (A,) int64 rows of the anchors.
        self_mass: ``calibrated``: the median probability of an anchor in its own row.
        advance: Called with the number of rows done since the last call.
    """
    size, width = embeddings.shape
    center = torch.zeros(width, device=embeddings.device)
    if kind == "calibrated":
        center = _mean(embeddings)
    ones = torch.ones(size, device=embeddings.device)
    kept = min(NUM_PEAKS, len(anchor_ids))
    bare = DenseMap(
        kind=kind,
        embeddings=embeddings,
        anchor_ids=anchor_ids,
        center=center,
        inverse_norm=_inverse_norms(embeddings, center),
        scale=ones,
        log_normaliser=torch.zeros_like(ones),
        peaks=torch.zeros(size, kept, dtype=torch.int32, device=embeddings.device),
        peak_values=torch.zeros(size, kept, device=embeddings.device),
        others=torch.full_like(ones, -torch.inf),
        row_smallest=torch.zeros_like(ones),
        smallest=torch.full((len(anchor_ids),), torch.inf, device=embeddings.device),
        largest=torch.full((len(anchor_ids),), -torch.inf, device=embeddings.device),
        own_token=torch.zeros_like(anchor_ids),
    )
    return _one_pass(replace(bare, scale=_scales(bare, self_mass)), advance)


def _mean(embeddings: Tensor) -> Tensor:
    """The mean embedding, (d,) float32, without a float32 copy of the table."""
    total = torch.zeros(embeddings.shape[1], dtype=torch.float64, device=embeddings.device)
    for ids in chunks(len(embeddings), embeddings.shape[1], embeddings.device):
        total += embeddings[ids].sum(dim=0, dtype=torch.float32)
    return (total / len(embeddings)).to(torch.float32)


def _inverse_norms(embeddings: Tensor, center: Tensor) -> Tensor:
    inverse = torch.empty(len(embeddings), device=embeddings.device)
    for ids in chunks(len(embeddings), embeddings.shape[1], embeddings.device):
        norm = (embeddings[ids].to(torch.float32) - center).norm(dim=1)
        inverse[ids] = torch.where(norm > 0, 1 / norm, 0.0)
    return inverse


def _scales(bare: DenseMap, self_mass: float) -> Tensor:
    if bare.kind == "eq16":
        return bare.scale
    if bare.kind == "calibrated":
        return torch.full_like(bare.scale, _temperature(bare, self_mass))
    # |row of cosines|^2 = e (A^T A) e^T: a (d, d) matrix instead of a second pass over V x A.
    anchors = bare.unit(bare.anchor_ids)
    gram = anchors.T @ anchors
    norms = torch.empty_like(bare.scale)
    for ids in chunks(bare.vocab_size, bare.embeddings.shape[1], gram.device):
        unit = bare.unit(ids)
        norms[ids] = ((unit @ gram) * unit).sum(dim=1).clamp(min=0).sqrt()
    return torch.where(norms > 0, _DEEPEN_SCALE / norms, 0.0)


def _temperature(bare: DenseMap, self_mass: float) -> float:
    """The tau at which the median self-mass of a sample of anchors is the one asked for."""
    count = min(_CALIBRATION_ROWS, bare.num_coordinates)
    sample = torch.linspace(0, bare.num_coordinates - 1, count, device=bare.anchor_ids.device).long()
    cosines = bare.scaled_cosines(bare.anchor_ids[sample], bare.unit(bare.anchor_ids))
    own = cosines.gather(1, sample[:, None])

    def median_mass(tau: float) -> float:
        return float((tau * own - (tau * cosines).logsumexp(1, keepdim=True)).exp().median())

    low, high = 0.0, 1.0
    while median_mass(high) < self_mass and high < 1e6:
        low, high = high, 2 * high
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if median_mass(middle) < self_mass else (low, middle)
    return high


def _one_pass(bare: DenseMap, advance: Progress) -> DenseMap:
    anchors = bare.unit(bare.anchor_ids)
    for ids in chunks(bare.vocab_size, bare.num_coordinates, anchors.device):
        scaled = bare.scaled_cosines(ids, anchors)
        bare.log_normaliser[ids] = scaled.logsumexp(dim=1)
        rows = scaled.sub_(bare.log_normaliser[ids, None])  # their logarithms
        _note_rows(bare, ids, rows)
        _note_columns(bare, ids, rows)
        advance(len(ids))
    for logs in (bare.peak_values, bare.others, bare.row_smallest, bare.smallest, bare.largest):
        logs.exp_()
    return bare


def _note_rows(bare: DenseMap, ids: Tensor, rows: Tensor) -> None:
    kept = bare.peaks.shape[1]
    values, coordinates = top_k(rows, min(kept + 1, rows.shape[1]))
    bare.peaks[ids] = coordinates[:, :kept].to(torch.int32)
    bare.peak_values[ids] = values[:, :kept]
    if values.shape[1] > kept:
        bare.others[ids] = values[:, kept]
    bare.row_smallest[ids] = rows.amin(dim=1)


def _note_columns(bare: DenseMap, ids: Tensor, rows: Tensor) -> None:
    torch.minimum(bare.smallest, rows.amin(dim=0), out=bare.smallest)
    # Finding out which row it is costs more than the maximum itself, and few columns rise in later chunks.
    risen = (rows.amax(dim=0) > bare.largest).nonzero().squeeze(1)
    value, row = rows.index_select(1, risen).max(dim=0)
    bare.largest[risen] = value
    bare.own_token[risen] = ids[row]
