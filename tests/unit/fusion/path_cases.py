"""Batches to carry and fuse, the mathematics in float64, and the two paths that must come out as it says.

Kernels are interpreted by Triton where there is no GPU.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import onceedit_vllm.fusion
from onceedit_vllm.dense.search import FLOOR
from onceedit_vllm.fusion import textual
from onceedit_vllm.fusion.carrier import carry_rows
from onceedit_vllm.fusion.carry_layout import CarryLayout
from onceedit_vllm.fusion.outcome import INACTIVE, LEFT, SAMPLED, SEARCHED
from onceedit_vllm.fusion.owed import OwedRows

triton = pytest.importorskip("triton")

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
INF, NAN = math.inf, math.nan
FLOATS = [torch.float32, torch.bfloat16]
ALPHAS = [0.0, 1e-6, 0.5, 0.999, 1.0]
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def load_kernels(name: str, interpret: bool) -> ModuleType:
    """A copy of a module for these tests alone, its kernels interpreted or compiled."""
    path = Path(onceedit_vllm.fusion.__path__[0]) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_under_test", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.knobs.runtime, "interpret", interpret)
        spec.loader.exec_module(module)
    return module


KERNELS = load_kernels("kernels", interpret=not GPU)
CARRY_KERNELS = load_kernels("carry_kernels", interpret=not GPU)


@contextmanager
def triton_ready() -> Iterator[None]:
    """Without a GPU: gives the interpreter what it lacks, and takes back what it leaves behind."""
    if GPU:
        yield
        return
    from triton.runtime import interpreter

    language, convert = triton.language, interpreter._convert_float

    def rounded(values: np.ndarray, source: object, target: object, mode: object) -> np.ndarray:
        if target is not language.bfloat16:
            return convert(values, source, target, mode)
        return torch.from_numpy(np.array(values)).to(torch.bfloat16).view(torch.uint16).numpy()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        return function.rewrite()(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_convert_float", rounded)  # Its own cuts bfloat16 off.
        for name in ("max", "min", "sum"):
            # Decorated when Triton was imported, by then for a compiler.
            patch.setattr(language, name, interpreter.InterpretedFunction(getattr(language, name).fn))
        # Once for all calls of functions, which would do it each time, and never undo it.
        scope = interpreter._patch_lang(language.max.fn)
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        try:
            yield
        finally:
            scope.restore()


class Batch(NamedTuple):
    logits: Tensor
    rows: Tensor
    log_probs: Tensor
    alpha: Tensor
    want_search: Tensor
    layout: CarryLayout
    owed: OwedRows | None = None


def batch_of(*tensors: Tensor, layout: CarryLayout) -> Batch:
    """The first five fields, moved to the device."""
    logits, rows, log_probs, alpha, want_search = (tensor.to(DEVICE) for tensor in tensors)
    return Batch(logits, rows, log_probs, alpha, want_search, layout)


def by_kernels(batch: Batch) -> list[int]:
    with triton_ready():
        return run_kernels(KERNELS, CARRY_KERNELS, batch).tolist()


def run_kernels(kernels: ModuleType, carry_kernels: ModuleType, batch: Batch) -> Tensor:
    """Both halves of a step, one behind the other."""
    lists = carry_kernels.carry_rows(batch.log_probs, batch.layout, batch.owed)
    return kernels.fuse_rows_inplace(batch.logits, batch.rows, lists, batch.alpha, batch.want_search)


def by_torch(batch: Batch) -> list[int]:
    lists = carry_rows(batch.log_probs, batch.layout, batch.owed)
    return textual.fuse_rows_inplace(batch.logits, batch.rows, lists, batch.alpha, batch.want_search).tolist()


Fuse = Callable[[Batch], list[int]]


def fused_row(batch: Batch, i: int) -> tuple[int, Tensor]:
    """Outcome and new row (V_l,) float64 of one entry, straight from the definition."""
    targets, sources, starts = (table.cpu() for table in batch.layout[:3])
    logits, log_probs = batch.logits[batch.rows[i]].double().cpu(), batch.log_probs[i].double().cpu()
    alpha, masked = float(batch.alpha[i]), logits == -INF
    owners = targets.repeat_interleave(starts.diff())
    q = torch.zeros_like(logits).index_add_(0, owners, log_probs[sources].exp())
    if batch.owed is not None:
        slots, mass, weight = (part[i].cpu() for part in batch.owed)
        q *= max(0.0, 1 - float(weight))
        q.index_add_(0, targets[slots[slots >= 0]], mass[slots >= 0].double())
    a = (alpha * q).masked_fill(masked, 0.0)
    total = 1 - alpha + float(a.sum())
    if not 0 < total < INF:
        return LEFT, logits
    log_p = logits - logits.logsumexp(0)
    if batch.want_search[i]:
        p = ((1 - alpha) * log_p.exp() + a).masked_fill(masked, -1.0)
        row = logits.clamp(max=FLOOR)
        row[int(p.numpy().argmax())] = 0.0
        return SEARCHED, row
    log_rest = max(FLOOR, math.log(1 - alpha)) if alpha < 1 else FLOOR
    return SAMPLED, torch.logaddexp(log_rest + log_p, a.log()) - math.log(total)


def same_bits(tensor: Tensor, other: Tensor) -> bool:
    return torch.equal(tensor.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def assert_fused(fuse: Fuse, batch: Batch, left: Iterable[int] = ()) -> list[int]:
    """Every entry comes out as defined; entries in ``left``, and rows of no entry, keep their bits."""
    before = batch._replace(logits=batch.logits.clone())
    outcome, untouched = fuse(batch), set(range(len(batch.logits)))
    for i, row in enumerate(batch.rows.tolist()):
        if row < 0:
            assert outcome[i] == INACTIVE
            continue
        code, expected = (LEFT, torch.empty(0)) if i in left else fused_row(before, i)
        got = batch.logits[row].cpu()
        assert outcome[i] == code
        if code == LEFT:
            continue
        untouched.remove(row)
        if code == SEARCHED:
            assert torch.equal(got, expected.to(got.dtype))
            continue
        torch.testing.assert_close(got.double(), expected, atol=2e-5, rtol=1e-5 + ROUNDING[got.dtype])
    for row in untouched:
        assert same_bits(batch.logits[row], before.logits[row])
    return outcome


def make_layout(width: int, plugin_width: int) -> CarryLayout:
    """Targets with no, one, five and hundreds of sources; tokens without a place or beyond the logits."""
    carry = torch.randperm(max(width, plugin_width))[:plugin_width] % (width + 3)
    carry[: plugin_width // 50] = carry[0]
    fives = carry[plugin_width // 50 : plugin_width // 5]
    fives.copy_(fives[torch.arange(len(fives)) // 5])
    carry[-5:] = -1
    return CarryLayout.of(carry, torch.randperm(width)[:20], width, DEVICE)


def make_batch(
    width: int = 3000, plugin_width: int = 500, n: int = 4, dtype: torch.dtype = torch.float32
) -> Batch:
    """Entries searched and sampled by turns, and a row more than entries."""
    torch.manual_seed(width + n)
    logits = (3 * torch.randn(n + 1, width)).to(dtype)
    log_probs = (4 * torch.randn(n, plugin_width)).log_softmax(1)
    given = (logits, torch.randperm(n + 1)[:n], log_probs, torch.full((n,), 0.6), torch.arange(n) % 2 == 0)
    return batch_of(*given, layout=make_layout(width, plugin_width))


def owing(batch: Batch, num_debts: int) -> Batch:
    """The same with debts, some of them to the same targets, and padding between."""
    n, u = len(batch.rows), len(batch.layout.targets)
    slots = torch.randint(-1, u, (n, num_debts))
    slots[:, ::3] = slots[:, :1].clone()
    slots[:, 1::5] = -1
    mass = torch.rand(n, num_debts).masked_fill(slots < 0, 0.0)
    weight = torch.linspace(0, 1, n) * (mass.sum(1) > 0)
    mass *= (weight / mass.sum(1).clamp(min=1e-9))[:, None]
    return batch._replace(owed=OwedRows(slots.to(DEVICE), mass.to(DEVICE), weight.to(DEVICE)))
