"""Carrying to the LLM's vocabulary: both paths against the table itself, in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.fusion.carrier import Carrier, carry_rows
from onceedit_vllm.fusion.carry_layout import CarryLayout
from onceedit_vllm.fusion.lists import Lists
from onceedit_vllm.fusion.owed import OwedRows
from tests.unit.alignment.toys import toy_alignment
from tests.unit.fusion.path_cases import (
    CARRY_KERNELS,
    DEVICE,
    GPU,
    INF,
    NAN,
    Batch,
    make_batch,
    owing,
    triton_ready,
)

pytestmark = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")

Carry = Callable[[Tensor, CarryLayout, OwedRows | None], Lists]


def by_kernels(log_probs: Tensor, layout: CarryLayout, owed: OwedRows | None = None) -> Lists:
    with triton_ready():
        lists: Lists = CARRY_KERNELS.carry_rows(log_probs, layout, owed)
    return lists


@pytest.fixture(params=[by_kernels, carry_rows], ids=["kernels", "torch"])
def carry(request: pytest.FixtureRequest) -> Carry:
    if GPU and request.param is carry_rows:
        pytest.skip("the torch path is for CPUs; its cases are run where there is no GPU")
    return request.param


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a short row."""
    monkeypatch.setitem(CARRY_KERNELS.BLOCK, DEVICE.type, 1024)


def expected_mass(batch: Batch) -> Tensor:
    """(n, u) float64, target by target."""
    targets, sources, starts = (table.cpu() for table in batch.layout[:3])
    owners = torch.arange(len(targets)).repeat_interleave(starts.diff())
    probs = batch.log_probs.double().cpu().exp()[:, sources]
    mass = torch.zeros(len(probs), len(targets), dtype=torch.float64).index_add_(1, owners, probs)
    if batch.owed is not None:
        slots, owed, weight = (part.cpu() for part in batch.owed)
        mass *= (1 - weight.double()).clamp(min=0)[:, None]
        mass.scatter_add_(1, slots.clamp(min=0), owed.double().masked_fill(slots < 0, 0.0))
    return mass


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_debts", [0, 9, 300])
@pytest.mark.parametrize("sizes", [(3000, 500), (600, 5000), (5000, 3000)])
def test_the_mass_of_every_target(
    carry: Carry, sizes: tuple[int, int], num_debts: int, dtype: torch.dtype
) -> None:
    batch = owing(make_batch(*sizes, n=5), num_debts)
    batch = batch._replace(log_probs=batch.log_probs.to(dtype))
    lists = carry(batch.log_probs, batch.layout, batch.owed)
    torch.testing.assert_close(lists.mass.double().cpu(), expected_mass(batch), atol=1e-9, rtol=2e-6)
    assert lists.whole
    assert lists.tail.tolist() == [0.0] * 5
    assert torch.equal(lists.ids, batch.layout.targets.expand(5, -1))


@pytest.mark.usefixtures("_small_blocks")
def test_all_rows_of_all_calls_share_one_row_of_tokens(carry: Carry) -> None:
    batch = make_batch()
    for n in (1, 4):
        lists = carry(batch.log_probs[:n], batch.layout, None)
        assert lists.ids.data_ptr() == batch.layout.targets.data_ptr()
        assert lists.ids.shape == lists.mass.shape == (n, len(batch.layout.targets))
    assert carry(batch.log_probs[:0], batch.layout, None).mass.shape == (0, len(batch.layout.targets))


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("place", [0, 499])
def test_bad_numbers_mark_the_tail(carry: Carry, value: float, place: int) -> None:
    """Anywhere in the plug-in's row: its last token is carried nowhere."""
    batch = make_batch(n=3)
    batch.log_probs[1, place] = value
    with np.errstate(invalid="ignore", over="ignore"):
        tail = carry(batch.log_probs, batch.layout, None).tail
    assert tail.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("part", [1, 2])
def test_bad_debts_mark_the_tail(carry: Carry, part: int) -> None:
    batch = owing(make_batch(n=3), 9)
    assert batch.owed is not None
    batch.owed[part][1] = NAN
    with np.errstate(invalid="ignore"):
        tail = carry(batch.log_probs, batch.layout, batch.owed).tail
    assert tail.isnan().tolist() == [False, True, False]


def test_plain_tables_are_as_good_as_an_alignment() -> None:
    alignment = toy_alignment("textual")
    log_probs = torch.randn(3, 25).log_softmax(dim=1)
    made = Carrier.of(alignment, 31, 25), Carrier(alignment.carry, Spellings.of({}), 31, 25)
    lists = [carrier.carry(log_probs) for carrier in made]
    assert torch.equal(lists[0].ids, lists[1].ids)
    assert torch.equal(lists[0].mass, lists[1].mass)
    assert torch.equal(made[0].targets, made[1].targets)
    assert made[0].book.reach == made[1].book.reach == 0


def test_what_the_book_says_is_owed_is_carried() -> None:
    carrier = Carrier(torch.tensor([7, 5, 5, -1]), Spellings.of({2: [5, 9]}), 12, 4)
    assert carrier.targets.tolist() == [5, 7, 9]
    said = torch.tensor([[0.1, 0.3, 0.6, 0.0]]).log()
    owed = carrier.book.owed([5], {1: said[0]}.get)
    now = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).log()
    first, second = carrier.carry(torch.cat([now, now]), [None, owed]).mass
    assert first.tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert second.tolist() == pytest.approx([0.5 / 3, 0.5 / 3, 2 / 3])


def test_another_width_is_refused() -> None:
    carrier = Carrier.of(toy_alignment("textual"), 31, 23)
    with pytest.raises(BadInputError, match="24 wide"):
        carrier.carry(torch.zeros(2, 24))
