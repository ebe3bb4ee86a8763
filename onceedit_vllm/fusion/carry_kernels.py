"""Carrying to the LLM's vocabulary on CUDA: the plug-in's distributions, read once, without a host sync.

carry, (n, tiles + blocks) programs: log-probabilities, tables -> mass at the targets, what was bad.
owe, (n, debts / 64), where something is owed: what is owed -> added to the mass there.

Sums run in a fixed order and there are no atomics: two runs give the same bits. The first call with a layout
lays out its tables anew, and compiles: both come before a CUDA graph is captured.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from torch.nn.functional import pad

from onceedit_vllm.fusion.lists import Lists

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.fusion.carry_layout import CarryLayout
    from onceedit_vllm.fusion.owed import OwedRows

#: Tokens per program. On a CPU only Triton's interpreter runs this, and there a program is what costs.
BLOCK = {"cuda": 1024, "cpu": 1 << 16}

# A target with more sources is crowded: some have hundreds, and its block must not wait for it. Then, per
# program, how many crowded targets or debts, and how many sources of each or other debts at a time.
_FEW, _TILE, _DEBTS, _AT_A_TIME = map(tl.constexpr, (4, 16, 64, 128))
_INF, _LAST = tl.constexpr(math.inf), tl.constexpr(2**31 - 1)


class _Tables(NamedTuple):
    """A layout in int32."""

    sources: Tensor  # (m,)
    starts: Tensor  # (u + 1,)
    crowded: Tensor  # (16 tiles,), slots with more than _FEW sources, most first: equals share a tile; or -1
    num_tiles: int
    num_targets: int


class _Said(NamedTuple):
    data: Tensor  # (n, V_s)
    width: int
    row_stride: int
    column_stride: int
    owed_weight: Tensor | None  # (n,) float32


@triton.jit
def _scale(said: _Said, entry):
    """The part of the distribution that owes nothing."""
    scale = 1.0
    if said.owed_weight is not None:
        ended = 1 - tl.load(said.owed_weight + entry)
        scale = tl.where(ended < 0, 0.0, ended)  # A weight above 1 owes no negative mass.
    return scale


@triton.jit
def _load_said(said: _Said, entry, tokens, mask, other):
    places = entry.to(tl.int64) * said.row_stride + tokens.to(tl.int64) * said.column_stride
    return tl.load(said.data + places, mask=mask, other=other).to(tl.float32)


@triton.jit
def _load_probs(tables: _Tables, said: _Said, entry, nth, mask):
    return tl.exp(_load_said(said, entry, tl.load(tables.sources + nth, mask=mask, other=0), mask, -_INF))


@triton.jit
def _carry_kernel(tables: _Tables, said: _Said, mass, bad, num_blocks, BLOCK: tl.constexpr):
    entry, part = tl.program_id(0), tl.program_id(1)
    mass += entry.to(tl.int64) * tables.num_targets
    if part < tables.num_tiles:
        _carry_tile(tables, said, entry, mass, part)
    else:
        block = part - tables.num_tiles
        _carry_block(tables, said, entry, mass, block, BLOCK)
        # All of the plug-in's numbers count, also those that are carried nowhere.
        tokens = block * BLOCK + tl.arange(0, BLOCK)
        log_probs = _load_said(said, entry, tokens, tokens < said.width, 0.0)
        wrong = tl.sum(tl.where(log_probs < _INF, 0.0, float("nan")), 0)
        tl.store(bad + entry * num_blocks + block, wrong)


@triton.jit
def _carry_tile(tables: _Tables, said: _Said, entry, mass, tile):
    slot = tl.load(tables.crowded + tile * _TILE + tl.arange(0, _TILE))
    start = tl.load(tables.starts + slot, mask=slot >= 0, other=0)
    end = tl.load(tables.starts + slot + 1, mask=slot >= 0, other=0)
    total = tl.full([_TILE], 0.0, tl.float32)
    for first in range(0, tl.max(end - start, 0), _AT_A_TIME):
        nth = start[:, None] + first + tl.arange(0, _AT_A_TIME)[None, :]
        total += tl.sum(_load_probs(tables, said, entry, nth, nth < end[:, None]), 1)
    tl.store(mass + slot, _scale(said, entry) * total, mask=slot >= 0)


@triton.jit
def _carry_block(tables: _Tables, said: _Said, entry, mass, block, BLOCK: tl.constexpr):
    slot = block * BLOCK + tl.arange(0, BLOCK)
    inside = slot < tables.num_targets
    start = tl.load(tables.starts + slot, mask=inside, other=0)
    end = tl.load(tables.starts + slot + 1, mask=inside, other=0)
    few = inside & (end - start <= _FEW)
    total = tl.full([BLOCK], 0.0, tl.float32)
    for nth in tl.static_range(_FEW):
        total += _load_probs(tables, said, entry, start + nth, few & (start + nth < end))
    tl.store(mass + slot, _scale(said, entry) * total, mask=few)


@triton.jit(do_not_specialize=["num_debts"])
def _owe_kernel(mass, num_targets, slots, masses, num_debts):
    """Of debts with the same target the first adds for all, so that no two programs meet."""
    entry, part = tl.program_id(0), tl.program_id(1)
    slots += entry * num_debts
    masses += entry * num_debts
    mass += entry.to(tl.int64) * num_targets
    debts = part * _DEBTS + tl.arange(0, _DEBTS)
    slot = tl.load(slots + debts, mask=debts < num_debts, other=-1).to(tl.int32)
    together = tl.full([_DEBTS], 0.0, tl.float32)
    earliest = tl.full([_DEBTS], _LAST, tl.int32)
    for first in range(0, num_debts, _AT_A_TIME):
        others = first + tl.arange(0, _AT_A_TIME)
        other_slot = tl.load(slots + others, mask=others < num_debts, other=-1).to(tl.int32)
        other = tl.load(masses + others, mask=others < num_debts, other=0.0)
        same = slot[:, None] == other_slot[None, :]
        together += tl.sum(tl.where(same, other[None, :], 0.0), 1)
        earliest = tl.minimum(earliest, tl.min(tl.where(same, others[None, :], _LAST), 1))
    adds = (slot >= 0) & (earliest == debts)
    before = tl.load(mass + slot, mask=adds, other=0.0)
    tl.store(mass + slot, before + together, mask=adds)


@lru_cache(maxsize=8)
def _tables(layout: CarryLayout) -> _Tables:
    starts = layout.starts.int()
    counts = starts.diff()
    crowded = counts.argsort(descending=True, stable=True)[: int((counts > _FEW.value).sum())]
    tiles = pad(crowded, (0, -len(crowded) % _TILE.value), value=-1).int()
    return _Tables(layout.sources.int(), starts, tiles, len(tiles) // _TILE.value, len(layout.targets))


def carry_rows(log_probs: Tensor, layout: CarryLayout, owed: OwedRows | None = None) -> Lists:
    """What :func:`onceedit_vllm.fusion.carrier.carry_rows` does, on a GPU; same arguments and result."""
    (n, width), block, tables = log_probs.shape, BLOCK[log_probs.device.type], _tables(layout)
    num_blocks = triton.cdiv(max(width, tables.num_targets), block)
    mass, bad = (
        log_probs.new_empty(n, count, dtype=torch.float32) for count in (tables.num_targets, num_blocks)
    )
    if n > 0:
        weight = None if owed is None else owed.weight.contiguous()
        said = _Said(log_probs, width, log_probs.stride(0), log_probs.stride(1), weight)
        grid = (n, tables.num_tiles + num_blocks)
        _carry_kernel[grid](tables, said, mass, bad, num_blocks, block, num_warps=8)
    tail = bad.sum(dim=1)
    if owed is not None:
        tail.masked_fill_((owed.weight + owed.mass.sum(dim=1)).isnan(), math.nan)
        _owe_inplace(mass, owed)
    return Lists(layout.targets.expand(n, -1), mass, tail, True)


def _owe_inplace(mass: Tensor, owed: OwedRows) -> None:
    (n, num_targets), num_debts = mass.shape, owed.slots.shape[1]
    if n > 0 and num_debts > 0:
        debts = (owed.slots.contiguous(), owed.mass.contiguous(), num_debts)
        _owe_kernel[(n, triton.cdiv(num_debts, _DEBTS.value))](mass, num_targets, *debts, num_warps=8)
