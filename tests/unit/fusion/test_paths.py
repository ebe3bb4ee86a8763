"""Both paths, kernels and torch, against the mathematics in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onceedit_vllm.fusion.carry_layout import CarryLayout
from onceedit_vllm.fusion.outcome import INACTIVE, LEFT, SAMPLED, SEARCHED
from onceedit_vllm.fusion.owed import OwedRows
from tests.unit.fusion.path_cases import (
    ALPHAS,
    CARRY_KERNELS,
    DEVICE,
    FLOATS,
    GPU,
    INF,
    KERNELS,
    NAN,
    ROUNDING,
    Fuse,
    assert_fused,
    batch_of,
    by_kernels,
    by_torch,
    make_batch,
    owing,
)

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")


@pytest.fixture(params=[by_kernels, by_torch], ids=["kernels", "torch"])
def fuse(request: pytest.FixtureRequest) -> Fuse:
    if GPU and request.param is by_torch:
        pytest.skip("the torch path is for CPUs; its cases are run where there is no GPU")
    return request.param


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a short row."""
    for kernels in (KERNELS, CARRY_KERNELS):
        monkeypatch.setitem(kernels.BLOCK, DEVICE.type, 1024)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", [32000, 49152, 128256, 151936, 262144])
def test_real_vocabularies(fuse: Fuse, width: int, dtype: torch.dtype) -> None:
    assert assert_fused(fuse, make_batch(width, 49153, 2, dtype)) == [SEARCHED, SAMPLED]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("dtype", ROUNDING)
def test_mixed_batches(fuse: Fuse, dtype: torch.dtype) -> None:
    batch = make_batch(5000, 3000, 13, dtype)
    batch.alpha.copy_(torch.tensor(ALPHAS * 2 + [0.3] * 3))
    batch.rows[1::5] = -1
    batch.logits[batch.rows[4], 7] = NAN
    outcome = assert_fused(fuse, batch._replace(log_probs=batch.log_probs.bfloat16()), left={4})
    assert set(outcome) == {SEARCHED, SAMPLED, LEFT, INACTIVE}


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("allowed", ["90 %", "1 %", "one", "targets", "others"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_tokens_stay_masked(fuse: Fuse, allowed: str, alpha: float) -> None:
    batch, tokens = make_batch(), torch.randperm(3000)
    target = torch.isin(tokens, batch.layout.targets.cpu())
    shares: dict[str, Any] = {
        "90 %": slice(2700),
        "1 %": slice(30),
        "one": slice(1),
        "targets": target,
        "others": ~target,
    }
    masked = torch.ones(3000, dtype=torch.bool)
    masked[tokens[shares[allowed]]] = False
    batch.logits[:, masked] = -INF
    batch.alpha.fill_(alpha)
    outcome = assert_fused(fuse, batch)
    assert alpha < 1 or allowed != "others" or outcome == [LEFT] * 4


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_saturated_rows(fuse: Fuse, dtype: torch.dtype, alpha: float) -> None:
    batch = make_batch(dtype=dtype)
    batch.logits[:, 1234] = 1e4
    batch.log_probs[2:] = -INF
    batch.log_probs[2:, 0] = 0.0
    batch.alpha.fill_(alpha)
    assert assert_fused(fuse, batch) == [SEARCHED, SAMPLED] * 2


def test_an_unlikely_token_is_not_masked(fuse: Fuse) -> None:
    batch = make_batch(dtype=torch.float16)
    batch.logits[:, 5] = -6e4
    batch.alpha.fill_(1.0)
    assert fuse(batch) == [SEARCHED, SAMPLED] * 2
    assert batch.logits[batch.rows, 5].tolist() == [-6e4, -65504.0] * 2


@pytest.mark.parametrize("layout", ["columns", "rows", "transposed"])
def test_strided_views(fuse: Fuse, layout: str) -> None:
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
    assert LEFT not in assert_fused(fuse, batch._replace(logits=view(memory), log_probs=log_probs))
    assert torch.equal(memory[between], before)


def test_without_rows_or_targets(fuse: Fuse) -> None:
    batch = make_batch()
    assert (
        assert_fused(fuse, batch_of(batch.logits, *(part[:0] for part in batch[1:5]), layout=batch.layout))
        == []
    )
    nowhere = CarryLayout.of(torch.full((500,), -1), torch.arange(0), 3000, DEVICE)
    batch = batch._replace(layout=nowhere)
    assert assert_fused(fuse, batch) == [SEARCHED, SAMPLED] * 2
    weight = torch.tensor([0.0, 0.0, 1.0, NAN], device=DEVICE)
    owed = OwedRows(torch.full((4, 3), -1, device=DEVICE), torch.zeros(4, 3, device=DEVICE), weight)
    assert assert_fused(fuse, batch._replace(owed=owed), left={3}) == [SEARCHED, SAMPLED, SEARCHED, LEFT]


@pytest.mark.usefixtures("_small_blocks")
def test_a_padded_plugin(fuse: Fuse) -> None:
    batch = make_batch(plugin_width=5000)
    batch = batch._replace(log_probs=torch.nn.functional.pad(batch.log_probs, (0, 77), value=-INF))
    batch.log_probs[0, -1] = NAN
    assert assert_fused(fuse, batch, left={0}) == [LEFT, SAMPLED, SEARCHED, SAMPLED]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("num_debts", [0, 1, 9, 300])
def test_owed_rows(fuse: Fuse, num_debts: int) -> None:
    batch = owing(make_batch(n=6), num_debts)
    again = batch._replace(logits=batch.logits.clone())
    assert LEFT not in assert_fused(fuse, batch)
    assert batch.owed is not None
    batch.owed.weight[-1:] *= 1 + 2**-23  # Counts as 1.
    again.logits[:, ::2] = -INF
    again.alpha.fill_(1.0)
    assert_fused(fuse, again)


BAD = [(place, value) for place in ("logit", "source", "no source", "alpha") for value in (NAN, INF)]
BAD += [(place, NAN) for place in ("logits", "weight", "mass", "mass of nothing")]
BAD += [("logits", -INF), ("alpha", -INF), ("alpha", -0.1), ("alpha", 1.1), ("source", 100.0)]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.filterwarnings("ignore:All-NaN")
@pytest.mark.parametrize(("place", "value"), BAD)
def test_bad_numbers_leave_a_row_alone(fuse: Fuse, place: str, value: float) -> None:
    batch = owing(make_batch(), 9)
    assert batch.owed is not None
    places: dict[str, tuple[torch.Tensor, Any]] = {
        "logit": (batch.logits[batch.rows[1:3]], 2999),
        "logits": (batch.logits, slice(None)),
        "source": (batch.log_probs, 0),
        "no source": (batch.log_probs, 499),
        "alpha": (batch.alpha[:, None], 0),
        "weight": (batch.owed.weight[:, None], 0),
        "mass": (batch.owed.mass, 0),
        "mass of nothing": (batch.owed.mass, 1),
    }
    part, column = places[place]
    entries = batch.rows[1:3] if part is batch.logits or place == "logit" else slice(1, 3)
    (batch.logits if place == "logit" else part)[entries, column] = value
    with np.errstate(invalid="ignore", over="ignore"):
        assert assert_fused(fuse, batch, left={1, 2}) == [SEARCHED, LEFT, LEFT, SAMPLED]


def winners_of(fuse: Fuse, cases: list[tuple[dict[int, float], dict[int, float], float]]) -> list[int]:
    """The winners of ten tokens, of which the first seven are plug-in tokens too.

    Args:
        fuse: The path under test.
        cases: Per row the LLM's logits, the plug-in's probabilities, and alpha.
    """
    n = len(cases)
    logits, log_probs = torch.full((n, 10), -1e4), torch.full((n, 7), -INF)
    for row, (given, said, _) in enumerate(cases):
        for token, logit in given.items():
            logits[row, token] = logit
        for token, p in said.items():
            log_probs[row, token] = math.log(p)
    alpha = torch.tensor([case[2] for case in cases])
    layout = CarryLayout.of(torch.arange(7), torch.arange(0), 10, DEVICE)
    tensors = (logits, torch.arange(n), log_probs, alpha, torch.ones(n, dtype=torch.bool))
    batch = batch_of(*tensors, layout=layout)
    assert fuse(batch) == [SEARCHED] * n
    return [int(winner) for winner in batch.logits.argmax(dim=1)]


def winner_of(fuse: Fuse, logits: dict[int, float], said: dict[int, float], alpha: float = 0.5) -> int:
    """The same for one row."""
    return winners_of(fuse, [(logits, said, alpha)])[0]


def test_of_equals_the_lowest_wins(fuse: Fuse) -> None:
    assert winner_of(fuse, {5: 0.0}, {2: 0.5, 6: 0.5}, alpha=1.0) == 2
    assert winner_of(fuse, {5: 0.0}, {6: 1.0}) == 5
    assert winner_of(fuse, {5: 0.0}, {3: 1.0}) == 3
    assert winner_of(fuse, {9: 0.0}, {3: 1.0}) == 3
    assert winner_of(fuse, {8: 0.0, 7: 0.0, 9: 0.0}, {}, alpha=0.0) == 7


def test_a_certain_plugin_wins_where_the_llm_cannot_help_another(fuse: Fuse) -> None:
    said = {2: 0.7, 5: 0.3}
    # 0.42 against 0.18 and the LLM's share of 0.4, of which token 5 gets all, half, or next to nothing.
    assert winner_of(fuse, {5: 0.0}, said, alpha=0.6) == 5
    assert winner_of(fuse, {5: 0.0, 9: 0.0}, said, alpha=0.6) == 2
    assert winner_of(fuse, {5: -9.0, 9: 0.0}, said, alpha=0.6) == 2
    # The LLM's own best is one that the plug-in cannot say: 0.41 against 0.413.
    assert winner_of(fuse, {9: 0.0}, said, alpha=0.59) == 2
    assert winner_of(fuse, {9: 0.0}, said, alpha=0.58) == 9


def test_certain_or_not_the_largest_wins(fuse: Fuse) -> None:
    """Weights around the one at which the winner changes hands: bounds must never decide it wrongly."""
    generator = np.random.default_rng(0)
    cases, expected = [], []
    for _ in range(40):
        p, q = generator.dirichlet(np.full(10, 0.2)) + 1e-9, generator.dirichlet(np.full(7, 0.2)) + 1e-9
        p, q = p / p.sum(), np.pad(q / q.sum(), (0, 3))
        llm, plugin = int(p.argmax()), int(q.argmax())
        # Where alpha q + (1 - alpha) p is the same at both.
        meets = (p[llm] - p[plugin]) / ((p[llm] - p[plugin]) + (q[plugin] - q[llm])) if llm != plugin else 0.5
        for alpha in (meets - 1e-3, meets + 1e-3):
            said = {i: x for i, x in enumerate(q) if x > 0}
            cases.append((dict(enumerate(np.log(p) + 7)), said, float(alpha)))
            expected.append(int((alpha * q + (1 - alpha) * p).argmax()))
    assert winners_of(fuse, cases) == expected


def test_without_the_plugin_the_llm_decides_however_close(fuse: Fuse) -> None:
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert winner_of(fuse, {8: 0.5, 7: below, 1: below}, {}, alpha=0.0) == 8


@pytest.mark.usefixtures("_small_blocks")
def test_of_equals_in_other_blocks_the_lowest_wins(fuse: Fuse) -> None:
    batch = make_batch(5000)
    batch.logits[:, [4000, 2500, 1500]] = 50.0
    batch.log_probs.fill_(-INF)
    assert assert_fused(fuse, batch) == [SEARCHED, SAMPLED] * 2
    assert batch.logits[batch.rows].argmax(1).tolist() == [1500] * 4
