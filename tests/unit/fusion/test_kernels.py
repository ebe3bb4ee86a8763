"""The kernels against the mathematics in float64; by Triton's interpreter where there is no GPU."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import onceedit_vllm.fusion
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.fusion.outcome import INACTIVE, LEFT, SAMPLED, SEARCHED
from onceedit_vllm.fusion.owed import OwedRows
from onceedit_vllm.fusion.search import FLOOR

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
INF, NAN = math.inf, math.nan
FLOATS = [torch.float32, torch.bfloat16]
ALPHAS = [0.0, 1e-6, 0.5, 0.999, 1.0]
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def load_kernels(interpret: bool) -> ModuleType:
    """A copy of the module for these tests alone, its kernels interpreted or compiled."""
    path = Path(onceedit_vllm.fusion.__path__[0]) / "kernels.py"
    spec = importlib.util.spec_from_file_location("kernels_under_test", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.knobs.runtime, "interpret", interpret)
        spec.loader.exec_module(module)
    return module


KERNELS = load_kernels(interpret=not GPU)


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

    def call(function, *args, **kwargs):  # type: ignore[no-untyped-def]
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
    carrier: Carrier
    owed: OwedRows | None = None


def fuse(batch: Batch) -> list[int]:
    with triton_ready():
        return KERNELS.fuse_rows_inplace(*batch).tolist()


def fused_row(batch: Batch, i: int) -> tuple[int, Tensor]:
    """Outcome and new row (V_l,) float64 of one entry, straight from the definition."""
    targets, sources, starts = (table.cpu() for table in batch.carrier[:3])
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


def assert_fused(batch: Batch, left: Iterable[int] = ()) -> list[int]:
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


def make_carrier(width: int, plugin_width: int) -> Carrier:
    """Targets with no, one, five and hundreds of sources; tokens without a place or beyond the logits."""
    carry = torch.randperm(max(width, plugin_width))[:plugin_width] % (width + 3)
    carry[: plugin_width // 50] = carry[0]
    fives = carry[plugin_width // 50 : plugin_width // 5]
    fives.copy_(fives[torch.arange(len(fives)) // 5])
    carry[-5:] = -1
    return Carrier.of(carry, torch.randperm(width)[:20], width, DEVICE)


def make_batch(
    width: int = 3000, plugin_width: int = 500, n: int = 4, dtype: torch.dtype = torch.float32
) -> Batch:
    """Entries searched and sampled by turns, and a row more than entries."""
    torch.manual_seed(width + n)
    logits = (3 * torch.randn(n + 1, width)).to(dtype)
    log_probs = (4 * torch.randn(n, plugin_width)).log_softmax(1)
    given = (logits, torch.randperm(n + 1)[:n], log_probs, torch.full((n,), 0.6), torch.arange(n) % 2 == 0)
    return Batch(*(tensor.to(DEVICE) for tensor in given), make_carrier(width, plugin_width))


def owing(batch: Batch, num_debts: int) -> Batch:
    """The same with debts, some of them to the same targets, and padding between."""
    n, u = len(batch.rows), len(batch.carrier.targets)
    slots = torch.randint(-1, u, (n, num_debts))
    slots[:, ::3] = slots[:, :1].clone()
    slots[:, 1::5] = -1
    mass = torch.rand(n, num_debts).masked_fill(slots < 0, 0.0)
    weight = torch.linspace(0, 1, n) * (mass.sum(1) > 0)
    mass *= (weight / mass.sum(1).clamp(min=1e-9))[:, None]
    return batch._replace(owed=OwedRows(slots.to(DEVICE), mass.to(DEVICE), weight.to(DEVICE)))


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a short row."""
    monkeypatch.setitem(KERNELS.BLOCK, DEVICE.type, 1024)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [32000, 49152, 128256, 151936, 262144])
def test_real_vocabularies(width: int, dtype: torch.dtype) -> None:
    assert assert_fused(make_batch(width, 49153, 2, dtype)) == [SEARCHED, SAMPLED]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("dtype", ROUNDING)
def test_mixed_batches(dtype: torch.dtype) -> None:
    batch = make_batch(5000, 3000, 13, dtype)
    batch.alpha.copy_(torch.tensor(ALPHAS * 2 + [0.3] * 3))
    batch.rows[1::5] = -1
    batch.logits[batch.rows[4], 7] = NAN
    outcome = assert_fused(batch._replace(log_probs=batch.log_probs.bfloat16()), left={4})
    assert set(outcome) == {SEARCHED, SAMPLED, LEFT, INACTIVE}


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("allowed", ["90 %", "1 %", "one", "targets", "others"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_tokens_stay_masked(allowed: str, alpha: float) -> None:
    batch, tokens = make_batch(), torch.randperm(3000)
    target = torch.isin(tokens, batch.carrier.targets.cpu())
    shares = {"90 %": slice(2700), "1 %": slice(30), "one": slice(1), "targets": target, "others": ~target}
    masked = torch.ones(3000, dtype=torch.bool)
    masked[tokens[shares[allowed]]] = False
    batch.logits[:, masked] = -INF
    batch.alpha.fill_(alpha)
    outcome = assert_fused(batch)
    assert alpha < 1 or allowed != "others" or outcome == [LEFT] * 4


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_saturated_rows(dtype: torch.dtype, alpha: float) -> None:
    batch = make_batch(dtype=dtype)
    batch.logits[:, 1234] = 1e4
    batch.log_probs[2:] = -INF
    batch.log_probs[2:, 0] = 0.0
    batch.alpha.fill_(alpha)
    assert assert_fused(batch) == [SEARCHED, SAMPLED] * 2


def test_an_unlikely_token_is_not_masked() -> None:
    batch = make_batch(dtype=torch.float16)
    batch.logits[:, 5] = -6e4
    batch.alpha.fill_(1.0)
    assert fuse(batch) == [SEARCHED, SAMPLED] * 2
    assert batch.logits[batch.rows, 5].tolist() == [-6e4, -65504.0] * 2


@pytest.mark.parametrize("layout", ["columns", "rows", "transposed"])
def test_strided_views(layout: str) -> None:
    batch = make_batch()
    memory = torch.randn((3000, 5) if layout == "transposed" else (15, 6001), device=DEVICE)

    def view(tensor: Tensor) -> Tensor:
        return tensor.t() if layout == "transposed" else tensor[views[layout]]

    views = {"columns": np.s_[:5, 1::2], "rows": np.s_[1::3, 5:3005]}
    view(memory).copy_(batch.logits)
    between = torch.ones_like(memory, dtype=torch.bool)
    view(between).fill_(False)
    before = memory[between].clone()
    log_probs = batch.log_probs.t().contiguous().t()
    assert LEFT not in assert_fused(batch._replace(logits=view(memory), log_probs=log_probs))
    assert torch.equal(memory[between], before)


def test_rows_beyond_two_to_the_31() -> None:
    batch = make_batch(262144, 49153, 2)
    batch = batch._replace(logits=batch.logits.bfloat16())
    far = torch.empty(2**31 // 262144 + 3, 262144, dtype=torch.bfloat16, device=DEVICE)  # Never all touched.
    far[-3:] = batch.logits
    assert fuse(batch._replace(logits=far, rows=batch.rows + len(far) - 3)) == fuse(batch)
    assert same_bits(far[-3:], batch.logits)


def test_without_rows_or_targets() -> None:
    batch = make_batch()
    assert assert_fused(Batch(batch.logits, *(part[:0] for part in batch[1:5]), batch.carrier)) == []
    nowhere = Carrier.of(torch.full((500,), -1), torch.arange(0), 3000, DEVICE)
    batch = batch._replace(carrier=nowhere)
    assert assert_fused(batch) == [SEARCHED, SAMPLED] * 2
    weight = torch.tensor([0.0, 0.0, 1.0, NAN], device=DEVICE)
    owed = OwedRows(torch.full((4, 3), -1, device=DEVICE), torch.zeros(4, 3, device=DEVICE), weight)
    assert assert_fused(batch._replace(owed=owed), left={3}) == [SEARCHED, SAMPLED, SEARCHED, LEFT]


@pytest.mark.usefixtures("_small_blocks")
def test_a_padded_plugin() -> None:
    batch = make_batch(plugin_width=5000)
    batch = batch._replace(log_probs=torch.nn.functional.pad(batch.log_probs, (0, 77), value=-INF))
    batch.log_probs[0, -1] = NAN
    assert assert_fused(batch, left={0}) == [LEFT, SAMPLED, SEARCHED, SAMPLED]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("num_debts", [0, 1, 9, 300])
def test_owed_rows(num_debts: int) -> None:
    batch = owing(make_batch(n=6), num_debts)
    again = batch._replace(logits=batch.logits.clone())
    assert LEFT not in assert_fused(batch)
    assert batch.owed is not None
    batch.owed.weight[-1:] *= 1 + 2**-23  # Counts as 1.
    again.logits[:, ::2] = -INF
    again.alpha.fill_(1.0)
    assert_fused(again)


BAD = [(place, value) for place in ("logit", "source", "no source", "alpha") for value in (NAN, INF)]
BAD += [(place, NAN) for place in ("logits", "weight", "mass", "mass of nothing")]
BAD += [("logits", -INF), ("alpha", -INF), ("alpha", -0.1), ("alpha", 1.1), ("source", 100.0)]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize(("place", "value"), BAD)
def test_bad_numbers_leave_a_row_alone(place: str, value: float) -> None:
    batch = owing(make_batch(), 9)
    assert batch.owed is not None
    part, column = {
        "logit": (batch.logits[batch.rows[1:3]], 2999),
        "logits": (batch.logits, slice(None)),
        "source": (batch.log_probs, 0),
        "no source": (batch.log_probs, 499),
        "alpha": (batch.alpha[:, None], 0),
        "weight": (batch.owed.weight[:, None], 0),
        "mass": (batch.owed.mass, 0),
        "mass of nothing": (batch.owed.mass, 1),
    }[place]
    entries = batch.rows[1:3] if part is batch.logits or place == "logit" else slice(1, 3)
    (batch.logits if place == "logit" else part)[entries, column] = value
    with np.errstate(invalid="ignore", over="ignore"):
        assert assert_fused(batch, left={1, 2}) == [SEARCHED, LEFT, LEFT, SAMPLED]


def winner_of(logits: dict[int, float], said: dict[int, float], alpha: float = 0.5) -> int:
    """The winner of ten tokens, of which the first seven are plug-in tokens too."""
    row, log_probs = torch.full((1, 10), -1e4), torch.full((1, 7), -INF)
    for token, logit in logits.items():
        row[0, token] = logit
    for token, p in said.items():
        log_probs[0, token] = math.log(p)
    given = (row, torch.tensor([0]), log_probs, torch.tensor([alpha]), torch.tensor([True]))
    carrier = Carrier.of(torch.arange(7), torch.arange(0), 10, DEVICE)
    batch = Batch(*(tensor.to(DEVICE) for tensor in given), carrier)
    assert fuse(batch) == [SEARCHED]
    return int(batch.logits.argmax())


def test_of_equals_the_lowest_wins() -> None:
    assert winner_of({5: 0.0}, {2: 0.5, 6: 0.5}, alpha=1.0) == 2
    assert winner_of({5: 0.0}, {6: 1.0}) == 5
    assert winner_of({5: 0.0}, {3: 1.0}) == 3
    assert winner_of({9: 0.0}, {3: 1.0}) == 3
    assert winner_of({8: 0.0, 7: 0.0, 9: 0.0}, {}, alpha=0.0) == 7


def test_without_the_plugin_the_llm_decides_however_close() -> None:
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert winner_of({8: 0.5, 7: below, 1: below}, {}, alpha=0.0) == 8


@pytest.mark.usefixtures("_small_blocks")
def test_of_equals_in_other_blocks_the_lowest_wins() -> None:
    batch = make_batch(5000)
    batch.logits[:, [4000, 2500, 1500]] = 50.0
    batch.log_probs.fill_(-INF)
    assert assert_fused(batch) == [SEARCHED, SAMPLED] * 2
    assert batch.logits[batch.rows].argmax(1).tolist() == [1500] * 4


@pytest.mark.usefixtures("_small_blocks")
def test_two_runs_give_the_same_bits() -> None:
    batch = owing(make_batch(5000, 3000, 6, torch.bfloat16), 200)
    again = batch._replace(logits=batch.logits.clone())
    assert fuse(batch) == fuse(again)
    assert same_bits(batch.logits, again.logits)


class NoSync(TorchDispatchMode):
    """Refuses what waits for a GPU, and shapes that depend on data."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.__name__
        waits = ("_local_scalar", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "_unique")
        assert not name.startswith(waits), name
        indices = [index for arg in args if isinstance(arg, list | tuple) for index in arg]
        assert torch.bool not in [index.dtype for index in indices if isinstance(index, Tensor)], name
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_nothing() -> None:
    batch = owing(make_batch(), 9)
    fuse(batch)  # Lays out the tables of the carrier.
    with triton_ready(), NoSync():
        KERNELS.fuse_rows_inplace(*batch)


@pytest.mark.skipif(not GPU, reason="graphs are captured on GPUs")
def test_a_captured_graph_fuses_what_it_finds() -> None:
    batch = owing(make_batch(), 9)
    graph, scratch = torch.cuda.CUDAGraph(), batch._replace(logits=batch.logits.clone())
    fuse(scratch)  # Compiles, and lays out the tables of the carrier.
    with torch.cuda.graph(graph):
        outcome = KERNELS.fuse_rows_inplace(*scratch)
    for _ in range(2):
        batch.log_probs.copy_(batch.log_probs.flip(1))
        scratch.logits.copy_(batch.logits)
        graph.replay()
        directly = batch._replace(logits=batch.logits.clone())
        assert fuse(directly) == outcome.tolist()
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

    def compile_only(kernel, *args, grid, warmup, **options):  # type: ignore[no-untyped-def]
        compiled[kernel.fn.__name__] = run(kernel, *args, grid=grid, warmup=True, **options).asm["ptx"]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", Hopper())
    monkeypatch.setattr(triton.JITFunction, "run", compile_only)
    kernels = load_kernels(interpret=False)
    kernels.BLOCK["cpu"] = kernels.BLOCK["cuda"]
    kernels.fuse_rows_inplace(*owing(make_batch(32000, 49153, dtype=dtype), 9))
    assert list(compiled) == ["_survey_kernel", "_owe_kernel", "_write_kernel", "_crown_kernel"]
    assert not [name for name, ptx in compiled.items() if "atom." in ptx or ".f64" in ptx]
