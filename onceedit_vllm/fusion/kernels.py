"""The textual fusion step on CUDA: rows of a batch of logits, fused where they lie, without a host sync.

Three launches, and one more where something is owed. Each logit of a row is read twice and written once;
the rest is the plug-in's distribution, tables that stay in the L2 cache, and a few numbers per block.

survey, (n, tiles + blocks) programs: logits, plug-in, tables -> numbers of the block; mass at the targets.
owe, (n, debts / 64): what is owed, the logits of its targets -> added to the mass there.
write, (n, blocks): logits, mass, numbers of all blocks -> logits, outcome, the block's best token.
crown, (n,): the best tokens of all blocks -> one logit.

Sums run in a fixed order and there are no atomics: two runs give the same bits. The first call with a carrier
lays out its tables, the first with a dtype or a layout compiles: both come before a CUDA graph is captured.
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

from onceedit_vllm.dense.search import FLOOR
from onceedit_vllm.fusion.outcome import INACTIVE, LEFT, SAMPLED, SEARCHED

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.fusion.carrier import Carrier
    from onceedit_vllm.fusion.owed import OwedRows

#: Logits per program. On a CPU only Triton's interpreter runs this, and there a program is what costs.
BLOCK = {"cuda": 2048, "cpu": 1 << 16}

# A target with more sources is crowded: some have hundreds, and its block must not wait for it. Then, per
# program, how many crowded targets or debts, and how many sources of each or other debts at a time.
_FEW, _TILE, _DEBTS, _AT_A_TIME = map(tl.constexpr, (4, 16, 64, 128))
_FLOOR, _INF = tl.constexpr(FLOOR), tl.constexpr(math.inf)
_LOWEST, _LAST = tl.constexpr(torch.finfo(torch.float32).min), tl.constexpr(2**31 - 1)
_LEFT, _SEARCHED, _SAMPLED, _INACTIVE = map(tl.constexpr, (LEFT, SEARCHED, SAMPLED, INACTIVE))


class _Matrix(NamedTuple):
    data: Tensor
    width: int
    row_stride: int
    column_stride: int


class _Step(NamedTuple):
    """The carrier in int32, what is asked of n entries, and what the launches tell each other."""

    slots: Tensor  # (V_l,), the index in `targets` of each LLM token, -1 where it is not there
    targets: Tensor  # (u,)
    sources: Tensor  # (m,)
    starts: Tensor  # (u + 1,)
    crowded: Tensor  # (16 tiles,), slots with more than _FEW sources, most first: equals share a tile; or -1
    num_tiles: int
    rows: Tensor  # (n,) int64
    alpha: Tensor  # (n,) float32
    want_search: Tensor  # (n,) bool
    owed_weight: Tensor | None  # (n,) float32
    logits: _Matrix  # (N, V_l)
    lowest: float  # finite number of the logits' dtype
    plugin: _Matrix  # (n, V_s)
    carried: _Matrix  # (n, u) float32, alpha q at the targets, 0 where masked
    sums: _Matrix  # (n, parts) float32, of `carried` by the program that made it; NaN where what is owed is
    blocks: _Matrix  # (2 n, blocks) float32: largest logit; sum of exp, NaN where numbers are bad
    best: _Matrix  # (n, blocks) int64: the largest P as bits, then how far its token is below _LAST
    outcome: Tensor  # (n,) int8


@triton.jit
def _at(matrix: _Matrix, row, columns):
    """Addresses, by 64 bits: a batch of logits can hold more than 2**31 numbers."""
    return matrix.data + row.to(tl.int64) * matrix.row_stride + columns.to(tl.int64) * matrix.column_stride


@triton.jit
def _load_entry(step: _Step, entry):
    """The row of an entry, its alpha, and whether both can be used."""
    row, alpha = tl.load(step.rows + entry), tl.load(step.alpha + entry)
    return row, alpha, (row >= 0) & (alpha >= 0) & (alpha <= 1)


@triton.jit
def _load_logits(step: _Step, row, tokens, mask):
    return tl.load(_at(step.logits, row, tokens), mask=mask, other=-_INF).to(tl.float32)


@triton.jit
def _load_probs(step: _Step, entry, nth, mask):
    source = tl.load(step.sources + nth, mask=mask, other=0)
    return tl.exp(tl.load(_at(step.plugin, entry, source), mask=mask, other=-_INF).to(tl.float32))


@triton.jit
def _survey_kernel(step: _Step, BLOCK: tl.constexpr):
    entry, part = tl.program_id(0), tl.program_id(1)
    row, scale, active = _load_entry(step, entry)
    if active:
        if step.owed_weight is not None:
            ended = 1 - tl.load(step.owed_weight + entry)
            scale *= tl.where(ended < 0, 0.0, ended)  # A weight above 1 owes no negative mass.
        if part < step.num_tiles:
            total = _carry_tile(step, entry, row, scale, part)
        else:
            total = _survey_block(step, entry, row, scale, part - step.num_tiles, BLOCK)
        tl.store(_at(step.sums, entry, part), total)


@triton.jit
def _carry_tile(step: _Step, entry, row, scale, tile):
    slot = tl.load(step.crowded + tile * _TILE + tl.arange(0, _TILE))
    start = tl.load(step.starts + slot, mask=slot >= 0, other=0)
    end = tl.load(step.starts + slot + 1, mask=slot >= 0, other=0)
    mass = tl.full([_TILE], 0.0, tl.float32)
    for first in range(0, tl.max(end - start, 0), _AT_A_TIME):
        nth = start[:, None] + first + tl.arange(0, _AT_A_TIME)[None, :]
        mass += tl.sum(_load_probs(step, entry, nth, nth < end[:, None]), 1)
    target = tl.load(step.targets + slot, mask=slot >= 0, other=0)
    mass = tl.where(_load_logits(step, row, target, slot >= 0) == -_INF, 0.0, scale * mass)
    tl.store(_at(step.carried, entry, slot), mass, mask=slot >= 0)
    return tl.sum(mass, 0)


@triton.jit
def _survey_block(step: _Step, entry, row, scale, block, BLOCK: tl.constexpr):
    tokens = block * BLOCK + tl.arange(0, BLOCK)
    inside = tokens < step.logits.width
    logit = _load_logits(step, row, tokens, inside)
    largest = tl.maximum(tl.max(logit, 0), _LOWEST)
    exps = tl.sum(tl.exp(logit - largest), 0)  # A maximum passes over NaN, but this sum does not.
    slot = tl.load(step.slots + tokens, mask=inside, other=-1)
    start = tl.load(step.starts + slot, mask=slot >= 0, other=0)
    end = tl.load(step.starts + slot + 1, mask=slot >= 0, other=0)
    few = (slot >= 0) & (end - start <= _FEW)
    mass = tl.full([BLOCK], 0.0, tl.float32)
    for nth in tl.static_range(_FEW):
        mass += _load_probs(step, entry, start + nth, few & (start + nth < end))
    mass = tl.where(logit == -_INF, 0.0, scale * mass)
    tl.store(_at(step.carried, entry, slot), mass, mask=few)
    # All of the plug-in's numbers count, also those that are carried nowhere.
    for first in range(block * BLOCK, step.plugin.width, step.blocks.width * BLOCK):
        ids = first + tl.arange(0, BLOCK)
        log_probs = tl.load(_at(step.plugin, entry, ids), mask=ids < step.plugin.width, other=0.0)
        exps += tl.sum(tl.where(log_probs.to(tl.float32) < _INF, 0.0, float("nan")), 0)
    tl.store(_at(step.blocks, entry * 2, block), largest)
    tl.store(_at(step.blocks, entry * 2 + 1, block), exps)
    return tl.sum(mass, 0)


@triton.jit(do_not_specialize=["num_debts", "first_part"])
def _owe_kernel(step: _Step, slots, masses, num_debts, first_part):
    """Of debts with the same target the first adds for all, so that no two programs meet."""
    entry, part = tl.program_id(0), tl.program_id(1)
    row, alpha, active = _load_entry(step, entry)
    if active:
        slots += entry * num_debts
        masses += entry * num_debts
        debts = part * _DEBTS + tl.arange(0, _DEBTS)
        slot = tl.load(slots + debts, mask=debts < num_debts, other=-1).to(tl.int32)
        own = tl.load(masses + debts, mask=debts < num_debts, other=0.0)
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
        target = tl.load(step.targets + slot, mask=adds, other=0)
        extra = tl.where(_load_logits(step, row, target, adds) == -_INF, 0.0, alpha * together)
        before = tl.load(_at(step.carried, entry, slot), mask=adds, other=0.0)
        tl.store(_at(step.carried, entry, slot), before + extra, mask=adds)
        tl.store(_at(step.sums, entry, first_part + part), tl.sum(tl.where(own == own, extra, own), 0))


@triton.jit(do_not_specialize=["num_parts"])
def _write_kernel(step: _Step, num_parts, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    entry, block = tl.program_id(0), tl.program_id(1)
    row, alpha, active = _load_entry(step, entry)
    outcome = tl.where(row < 0, _INACTIVE, _LEFT)
    if active:
        parts = tl.arange(0, PARTS)
        known = parts < step.blocks.width
        largest = tl.load(_at(step.blocks, entry * 2, parts), mask=known, other=_LOWEST)
        exps = tl.load(_at(step.blocks, entry * 2 + 1, parts), mask=known, other=0.0)
        top, rest = tl.max(largest, 0), 1 - alpha
        exps = tl.sum(exps * tl.exp(largest - top), 0)
        total = rest + tl.sum(tl.load(_at(step.sums, entry, parts), mask=parts < num_parts, other=0.0), 0)
        if (exps > 0) & (total > 0) & (total < _INF):
            search = tl.load(step.want_search + entry)
            outcome = tl.where(search, _SEARCHED, _SAMPLED)
            _write_block(step, entry, row, block, search, rest, top, tl.log(exps), total, BLOCK)
    tl.store(step.outcome + entry, outcome.to(tl.int8), mask=block == 0)


@triton.jit
def _write_block(step: _Step, entry, row, block, search, rest, top, log_exps, total, BLOCK: tl.constexpr):
    tokens = block * BLOCK + tl.arange(0, BLOCK)
    inside = tokens < step.logits.width
    logit = _load_logits(step, row, tokens, inside)
    allowed = logit > -_INF
    # log p_l in two parts: added to a logit of 1e4, log_exps would lose its digits.
    below = tl.where(allowed, logit - top, 0.0)
    slot = tl.load(step.slots + tokens, mask=inside, other=-1)
    mass = tl.load(_at(step.carried, entry, slot), mask=slot >= 0, other=0.0)
    fused = rest * tl.exp(below - log_exps) + mass
    if search:
        # Without mass only the LLM's best can win, even where rounding makes others its equals.
        runs = allowed & ((mass > 0) | (below == 0))
        key = (fused.to(tl.int32, bitcast=True).to(tl.int64) << 32) + (_LAST - tokens)
        tl.store(_at(step.best, entry, block), tl.max(tl.where(runs, key, 0), 0))
        result = tl.minimum(logit, _FLOOR)
    else:
        # Where there is mass the sum is not 0, and where there is none its log needs no sum.
        log_rest = tl.where(rest > 0, tl.log(tl.where(rest > 0, rest, 1.0)), _FLOOR)
        log_fused = tl.log(tl.where(mass > 0, fused, 1.0))
        result = tl.where(mass > 0, log_fused, below - log_exps + log_rest) - tl.log(total)
    # However unlikely, an allowed token does not become a masked one.
    result = tl.where(allowed, tl.maximum(result, step.lowest), -_INF)
    tl.store(_at(step.logits, row, tokens), result, mask=inside)


@triton.jit
def _crown_kernel(step: _Step, PARTS: tl.constexpr):
    entry = tl.program_id(0)
    if tl.load(step.outcome + entry) == _SEARCHED:
        blocks = tl.arange(0, PARTS)
        keys = tl.load(_at(step.best, entry, blocks), mask=blocks < step.best.width, other=0)
        winner = _LAST - (tl.max(keys, 0) & _LAST)
        tl.store(_at(step.logits, tl.load(step.rows + entry), winner), 0.0, mask=winner < step.logits.width)


@lru_cache(maxsize=8)
def _tables(carrier: Carrier, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, int]:
    targets, sources, starts = carrier.targets.int(), carrier.sources.int(), carrier.starts.int()
    slots = torch.full((width,), -1, dtype=torch.int32, device=targets.device)
    slots[carrier.targets] = torch.arange(len(targets), dtype=torch.int32, device=targets.device)
    counts = starts.diff()
    crowded = counts.argsort(descending=True, stable=True)[: int((counts > _FEW.value).sum())]
    tiles = pad(crowded, (0, -len(crowded) % _TILE.value), value=-1).int()
    return slots, targets, sources, starts, tiles, len(tiles) // _TILE.value


def fuse_rows_inplace(
    logits: Tensor,
    rows: Tensor,
    plugin_log_probs: Tensor,
    alpha: Tensor,
    want_search: Tensor,
    carrier: Carrier,
    owed: OwedRows | None = None,
) -> Tensor:
    """What :func:`onceedit_vllm.fusion.textual.fuse_rows_inplace` does, for logits on a GPU.

    Arguments and result are the same; rows of -1 let a captured graph have a fixed n. ``logits`` may be
    float32, bfloat16 or float16 and ``plugin_log_probs`` float32 or bfloat16, of any strides.
    """
    n, width, block = len(rows), logits.shape[1], BLOCK[logits.device.type]
    if n == 0:
        return logits.new_empty(0, dtype=torch.int8)
    tables, num_blocks = _tables(carrier, width), triton.cdiv(width, block)
    num_debts, first_debt = 0 if owed is None else owed.slots.shape[1], tables[-1] + num_blocks
    num_parts = first_debt + triton.cdiv(num_debts, _DEBTS.value)
    parts = triton.next_power_of_2(num_parts)
    asked = (rows.contiguous(), alpha.contiguous(), want_search.contiguous())
    weight = None if owed is None else owed.weight.contiguous()
    given = (_matrix(logits), torch.finfo(logits.dtype).min, _matrix(plugin_log_probs))
    shapes = ((n, len(carrier.targets)), (n, parts), (2 * n, num_blocks))
    carried, sums, blocks = (_matrix(logits.new_empty(shape, dtype=torch.float32)) for shape in shapes)
    best, outcome = logits.new_empty(n, num_blocks, dtype=torch.int64), logits.new_empty(n, dtype=torch.int8)
    step = _Step(*tables, *asked, weight, *given, carried, sums, blocks, _matrix(best), outcome)
    _survey_kernel[(n, first_debt)](step, BLOCK=block, num_warps=8)
    if owed is not None and num_debts > 0:
        debts = (owed.slots.contiguous(), owed.mass.contiguous(), num_debts)
        _owe_kernel[(n, num_parts - first_debt)](step, *debts, first_debt, num_warps=8)
    _write_kernel[(n, num_blocks)](step, num_parts, parts, block, num_warps=8)
    _crown_kernel[(n,)](step, parts, num_warps=1)
    return outcome


def _matrix(data: Tensor) -> _Matrix:
    return _Matrix(data, data.shape[1], data.stride(0), data.stride(1))
