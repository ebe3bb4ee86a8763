"""What only the kernels promise: determinism, no waiting, graphs, and code that compiles."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.fusion.path_cases import (
    CARRY_KERNELS,
    DEVICE,
    FLOATS,
    GPU,
    KERNELS,
    by_kernels,
    load_kernels,
    make_batch,
    owing,
    run_kernels,
    same_bits,
    triton_ready,
)

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")


def test_rows_beyond_two_to_the_31() -> None:
    batch = make_batch(262144, 49153, 2)
    batch = batch._replace(logits=batch.logits.bfloat16())
    far = torch.empty(2**31 // 262144 + 3, 262144, dtype=torch.bfloat16, device=DEVICE)  # Never all touched.
    far[-3:] = batch.logits
    assert by_kernels(batch._replace(logits=far, rows=batch.rows + len(far) - 3)) == by_kernels(batch)
    assert same_bits(far[-3:], batch.logits)


def test_two_runs_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernels in (KERNELS, CARRY_KERNELS):
        monkeypatch.setitem(kernels.BLOCK, DEVICE.type, 1024)
    batch = owing(make_batch(5000, 3000, 6, torch.bfloat16), 200)
    again = batch._replace(logits=batch.logits.clone())
    assert by_kernels(batch) == by_kernels(again)
    assert same_bits(batch.logits, again.logits)


class NoSync(TorchDispatchMode):
    """Refuses what waits for a GPU, and shapes that depend on data."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__
        waits = ("_local_scalar", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique")
        assert not name.startswith(waits), name
        indices = [index for arg in args if isinstance(arg, list | tuple) for index in arg]
        assert torch.bool not in [index.dtype for index in indices if isinstance(index, Tensor)], name
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_nothing() -> None:
    batch = owing(make_batch(), 9)
    by_kernels(batch)  # Lays out the tables.
    with triton_ready(), NoSync():
        run_kernels(KERNELS, CARRY_KERNELS, batch)


@pytest.mark.skipif(not GPU, reason="graphs are captured on GPUs")
def test_a_captured_graph_fuses_what_it_finds() -> None:
    batch = owing(make_batch(), 9)
    graph, scratch = torch.cuda.CUDAGraph(), batch._replace(logits=batch.logits.clone())
    by_kernels(scratch)  # Compiles, and lays out the tables.
    with torch.cuda.graph(graph):
        outcome = run_kernels(KERNELS, CARRY_KERNELS, scratch)
    for _ in range(2):
        batch.log_probs.copy_(batch.log_probs.flip(1))
        scratch.logits.copy_(batch.logits)
        graph.replay()
        directly = batch._replace(logits=batch.logits.clone())
        assert by_kernels(directly) == outcome.tolist()
        assert same_bits(directly.logits, scratch.logits)


class Hopper:
    """Stands in for a GPU's driver: kernels can be compiled where there is no GPU."""

    get_current_target = staticmethod(lambda: triton.backends.compiler.GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)


@pytest.mark.skipif(GPU, reason="all other tests compile them")
@pytest.mark.skipif(triton.knobs.runtime.interpret, reason="the whole process interprets")
@pytest.mark.parametrize("dtype", FLOATS)
def test_kernels_compile(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run, compiled = triton.JITFunction.run, {}

    def compile_only(kernel, *args, grid, warmup, **options):
        compiled[kernel.fn.__name__] = run(kernel, *args, grid=grid, warmup=True, **options).asm["ptx"]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", Hopper())
    monkeypatch.setattr(triton.JITFunction, "run", compile_only)
    modules = [load_kernels(name, interpret=False) for name in ("kernels", "carry_kernels")]
    for kernels in modules:
        kernels.BLOCK["cpu"] = kernels.BLOCK["cuda"]
    run_kernels(modules[0], modules[1], owing(make_batch(32000, 49153, dtype=dtype), 9))
    fusing = ["_survey_kernel", "_write_kernel", "_crown_kernel"]
    assert list(compiled) == ["_carry_kernel", "_owe_kernel", *fusing]
    assert not [name for name, ptx in compiled.items() if "atom." in ptx or ".f64" in ptx]
