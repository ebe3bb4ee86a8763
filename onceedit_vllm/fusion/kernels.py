"""Fusion with whole lists on CUDA: rows of a batch of logits, fused where they lie, without a host sync.

Three launches. Each logit of a row is read twice and written once; the rest is the plug-in's mass, a table
that stays in the L2 cache, and a few numbers per block.

survey, (n, blocks) programs: logits, mass -> numbers of the block.
write, (n, blocks): logits, mass, numbers of all blocks -> logits, outcome, the block's best token.
crown, (n,): the best tokens of all blocks -> one logit.

Sums run in a fixed order and there are no atomics: two runs give the same bits. The first call with a list
of tokens lays out its table, the first with a dtype or a layout compiles: both come before a CUDA graph is
captured.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl

from onceedit_vllm.dense.search import FLOOR
from onceedit_vllm.fusion.outcome import INACTIVE, LEFT, SAMPLED, SEARCHED

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.fusion.lists import Lists

#: Logits per program. On a CPU only Triton's interpreter runs this, and there a program is what costs.
BLOCK = {"cuda": 2048, "cpu": 1 << 16}

_FLOOR, _INF = tl.constexpr(FLOOR), tl.constexpr(math.inf)
_LOWEST, _LAST = tl.constexpr(torch.finfo(torch.float32).min), tl.constexpr(2**31 - 1)
_LEFT, _SEARCHED, _SAMPLED, _INACTIVE = map(tl.constexpr, (LEFT, SEARCHED, SAMPLED, INACTIVE))


class _Matrix(NamedTuple):
    data: Tensor
    width: int
    row_stride: int
    column_stride: int


class _Step(NamedTuple):
    """What is asked of n entries, and what the launches tell each other; k tokens are listed."""

    slots: Tensor  # (V_l,) int32, the place of each LLM token in the list, -1 where it is not there
    rows: Tensor  # (n,) int64
    alpha: Tensor  # (n,) float32
    want_search: Tensor  # (n,) bool
    tail: Tensor  # (n,) float32, NaN where the list is bad
    logits: _Matrix  # (N, V_l)
    lowest: float  # finite number of the logits' dtype
    mass: _Matrix  # (n, k) float32
    sums: _Matrix  # (n, blocks) float32, of alpha times the mass of allowed tokens
    blocks: _Matrix  # (2 n, blocks) float32: largest logit; sum of exp, NaN where numbers are bad
    best: _Matrix  # (n, blocks) int64: the largest P as bits, then how far its token is below _LAST
    outcome: Tensor  # (n,) int8


@triton.jit
def _at(matrix: _Matrix, row, columns):
    """Addresses, by 64 bits: a batch of logits can hold more than 2**31 numbers."""
    return matrix.data + row.to(tl.int64) * matrix.row_stride + columns.to(tl.int64) * matrix.column_stride


@triton.jit
def _load_entry(step: _Step, entry):
    """The row of an entry, its alpha, and whether all of it can be used."""
    row, alpha, tail = tl.load(step.rows + entry), tl.load(step.alpha + entry), tl.load(step.tail + entry)
    return row, alpha, (row >= 0) & (alpha >= 0) & (alpha <= 1) & (tail == tail)


@triton.jit
def _load_logits(step: _Step, row, tokens, mask):
    return tl.load(_at(step.logits, row, tokens), mask=mask, other=-_INF).to(tl.float32)


@triton.jit
def _load_carried(step: _Step, entry, alpha, tokens, inside, logit):
    """The plug-in's part of P, 0 where masked."""
    slot = tl.load(step.slots + tokens, mask=inside, other=-1)
    mass = tl.load(_at(step.mass, entry, slot), mask=slot >= 0, other=0.0)
    return tl.where(logit == -_INF, 0.0, alpha * mass)


@triton.jit
def _survey_kernel(step: _Step, BLOCK: tl.constexpr):
    entry, block = tl.program_id(0), tl.program_id(1)
    row, alpha, active = _load_entry(step, entry)
    if active:
        tokens = block * BLOCK + tl.arange(0, BLOCK)
        inside = tokens < step.logits.width
        logit = _load_logits(step, row, tokens, inside)
        largest = tl.maximum(tl.max(logit, 0), _LOWEST)
        exps = tl.sum(tl.exp(logit - largest), 0)  # A maximum passes over NaN, but this sum does not.
        carried = _load_carried(step, entry, alpha, tokens, inside, logit)
        tl.store(_at(step.blocks, entry * 2, block), largest)
        tl.store(_at(step.blocks, entry * 2 + 1, block), exps)
        tl.store(_at(step.sums, entry, block), tl.sum(carried, 0))


@triton.jit
def _write_kernel(step: _Step, PARTS: tl.constexpr, BLOCK: tl.constexpr):
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
        total = rest + tl.sum(tl.load(_at(step.sums, entry, parts), mask=known, other=0.0), 0)
        if (exps > 0) & (total > 0) & (total < _INF):
            search = tl.load(step.want_search + entry)
            outcome = tl.where(search, _SEARCHED, _SAMPLED)
            _write_block(step, entry, row, alpha, block, search, top, tl.log(exps), total, BLOCK)
    tl.store(step.outcome + entry, outcome.to(tl.int8), mask=block == 0)


@triton.jit
def _write_block(step: _Step, entry, row, alpha, block, search, top, log_exps, total, BLOCK: tl.constexpr):
    tokens = block * BLOCK + tl.arange(0, BLOCK)
    inside = tokens < step.logits.width
    # Behind an `if` Triton 3.6 knows no number of a step any more that it took for a constant, such as a
    # stride of 1: all of them are read before it.
    places, lowest = _at(step.logits, row, tokens), step.lowest
    logit = _load_logits(step, row, tokens, inside)
    allowed = logit > -_INF
    # log p_l in two parts: added to a logit of 1e4, log_exps would lose its digits.
    below = tl.where(allowed, logit - top, 0.0)
    mass, rest = _load_carried(step, entry, alpha, tokens, inside, logit), 1 - alpha
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
    result = tl.where(allowed, tl.maximum(result, lowest), -_INF)
    tl.store(places, result, mask=inside)


@triton.jit
def _crown_kernel(step: _Step, PARTS: tl.constexpr):
    entry = tl.program_id(0)
    if tl.load(step.outcome + entry) == _SEARCHED:
        blocks = tl.arange(0, PARTS)
        keys = tl.load(_at(step.best, entry, blocks), mask=blocks < step.best.width, other=0)
        winner = _LAST - (tl.max(keys, 0) & _LAST)
        tl.store(_at(step.logits, tl.load(step.rows + entry), winner), 0.0, mask=winner < step.logits.width)


class _Tokens:
    """The tokens of a list, told from others by where they lie; held, so that no others come to lie there."""

    def __init__(self, ids: Tensor, width: int) -> None:
        self.ids, self.width = ids, width
        self._key = ids.device, ids.data_ptr(), len(ids), ids.stride(0), width

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Tokens) and self._key == other._key


@lru_cache(maxsize=8)
def _slots(tokens: _Tokens) -> Tensor:
    slots = torch.full((tokens.width,), -1, dtype=torch.int32, device=tokens.ids.device)
    slots[tokens.ids] = torch.arange(len(tokens.ids), dtype=torch.int32, device=slots.device)
    return slots


def fuse_rows_inplace(
    logits: Tensor, rows: Tensor, lists: Lists, alpha: Tensor, want_search: Tensor
) -> Tensor:
    """What :func:`onceedit_vllm.fusion.textual.fuse_rows_inplace` does, for whole lists on a GPU.

    Arguments and result are the same; rows of -1 let a captured graph have a fixed n. ``logits`` may be
    float32, bfloat16 or float16, of any strides.
    """
    n, width, block = len(rows), logits.shape[1], BLOCK[logits.device.type]
    if n == 0:
        return logits.new_empty(0, dtype=torch.int8)
    num_blocks = triton.cdiv(width, block)
    asked = (rows.contiguous(), alpha.contiguous(), want_search.contiguous(), lists.tail.contiguous())
    given = (_matrix(logits), torch.finfo(logits.dtype).min, _matrix(lists.mass))
    sums, blocks = (_matrix(logits.new_empty(count, num_blocks, dtype=torch.float32)) for count in (n, 2 * n))
    best, outcome = logits.new_empty(n, num_blocks, dtype=torch.int64), logits.new_empty(n, dtype=torch.int8)
    slots = _slots(_Tokens(lists.ids[0], width))
    step = _Step(slots, *asked, *given, sums, blocks, _matrix(best), outcome)
    parts = triton.next_power_of_2(num_blocks)
    _survey_kernel[(n, num_blocks)](step, BLOCK=block, num_warps=8)
    _write_kernel[(n, num_blocks)](step, parts, block, num_warps=8)
    _crown_kernel[(n,)](step, parts, num_warps=1)
    return outcome


def _matrix(data: Tensor) -> _Matrix:
    return _Matrix(data, data.shape[1], data.stride(0), data.stride(1))
