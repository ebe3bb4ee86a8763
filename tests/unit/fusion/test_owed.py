from __future__ import annotations

import math

import pytest
import torch

from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.fusion.carry_layout import CarryLayout
from onceedit_vllm.fusion.owed import Owed, OwedRows, SpellingBook, owe_inplace

# Plug-in tokens 0..5: 1 is the LLM's 10 as it is; 2 is written 10 11, 3 is 10 12, 4 is 10 11 13.
CARRY = torch.tensor([20, 10, 10, 10, 10, -1])
SPELLINGS = Spellings.of({2: [10, 11], 3: [10, 12], 4: [10, 11, 13]})


def book() -> SpellingBook:
    return SpellingBook(SPELLINGS, CARRY)


def says(**probs: float) -> torch.Tensor:
    log_probs = torch.full((6,), -math.inf)
    for name, p in probs.items():
        log_probs[int(name[1:])] = math.log(p)
    return log_probs


def test_spellings_survive_their_flat_form() -> None:
    assert SPELLINGS.as_lists() == {2: [10, 11], 3: [10, 12], 4: [10, 11, 13]}
    assert Spellings.of({}).as_lists() == {}
    assert SpellingBook(Spellings.of({}), CARRY).reach == 0


def test_the_rest_of_a_token_is_owed_with_the_mass_that_goes_on() -> None:
    said = says(t0=0.1, t1=0.3, t2=0.4, t3=0.2)
    owed = book().owed([7, 10], {1: said}.get)
    assert owed is not None
    mass = torch.zeros(20).index_add_(0, owed.ids, owed.mass)
    assert mass[11] == pytest.approx(0.4 / 0.9, abs=1e-6)
    assert mass[12] == pytest.approx(0.2 / 0.9, abs=1e-6)
    assert float(owed.weight) == pytest.approx(0.6 / 0.9, abs=1e-6)
    certainly = owed.only()
    assert float(certainly.weight) == pytest.approx(1.0)
    assert float(certainly.mass.sum()) == pytest.approx(1.0)


def test_a_longer_beginning_comes_first() -> None:
    said = says(t2=0.5, t4=0.5)
    owed = book().owed([10, 11], {2: said}.get)
    assert owed is not None
    assert owed.ids.tolist() == [13]
    assert float(owed.weight) == pytest.approx(0.5)


def test_of_two_beginnings_the_longest_that_was_meant_counts() -> None:
    # 2 is written 10 10 11, 3 is written 10 12: after 10 10 both could be under way.
    nested = SpellingBook(Spellings.of({2: [10, 10, 11], 3: [10, 12]}), torch.tensor([20, 10, 10, 10]))
    long, short = says(t2=1.0)[:4], says(t3=1.0)[:4]
    noise = says(t0=1.0)[:4]
    for before, expected in (
        ({2: long, 1: short}, 11),
        ({2: noise, 1: short}, 12),
        ({2: long, 1: noise}, 11),
    ):
        owed = nested.owed([10, 10], before.get)
        assert owed is not None
        assert owed.ids[owed.mass > 0].tolist() == [expected]
        assert float(owed.weight) == 1.0


def test_nothing_is_owed_without_a_beginning_or_a_memory() -> None:
    assert book().owed([11], {1: says(t2=1.0)}.get) is None
    nothing: dict[int, torch.Tensor] = {}
    assert book().owed([10], nothing.get) is None
    assert book().owed([], nothing.get) is None


def test_what_the_plugin_did_not_mean_is_not_owed() -> None:
    owed = book().owed([10], {1: says(t0=0.995, t2=0.005)}.get)
    assert owed is not None
    assert float(owed.weight) == 0.0
    assert not owed.mass.any()
    assert owed.only().mass.isnan().all(), "a row that rests on it alone is left to the LLM"


LAYOUT = CarryLayout.of(torch.tensor([10, 11, -1]), torch.tensor([12]), 20, torch.device("cpu"))


def test_owing_keeps_a_distribution_one() -> None:
    carried = torch.tensor([[0.25, 0.25, 0.5], [0.2, 0.3, 0.5]])
    before = carried.clone()
    debt = Owed(torch.tensor([11, 11, 19]), torch.tensor([0.5, 0.25, 0.0]), torch.tensor(0.75))
    rows = OwedRows.of([None, debt], LAYOUT)
    assert rows is not None
    assert rows.slots.tolist() == [[-1, -1, -1], [1, 1, -1]], "19 has no place"
    owe_inplace(carried, rows)
    assert torch.equal(carried[0], before[0])
    assert carried[1].tolist() == pytest.approx([0.05, 0.075 + 0.75, 0.125])
    assert float(carried[1].sum()) == pytest.approx(1.0)
    assert OwedRows.of([None, None], LAYOUT) is None


def test_a_layout_turns_the_carry_table_round() -> None:
    carry = torch.tensor([7, -1, 3, 7, 99, 3, 7])
    layout = CarryLayout.of(carry, torch.tensor([5, 98]), 20, torch.device("cpu"))
    assert layout.targets.tolist() == [3, 5, 7]
    owned = [layout.sources[a:b].tolist() for a, b in zip(layout.starts, layout.starts[1:], strict=False)]
    assert owned == [[2, 5], [], [0, 3, 6]]
    assert layout.first.tolist() == [2, 7, 0], "7 stands for no token"
    assert (layout.others.tolist(), layout.other_slots.tolist()) == ([5, 3, 6], [0, 2, 2])
    assert layout.slots_of(torch.tensor([[7, 4], [99, 3]])).tolist() == [[2, -1], [-1, 0]]
    nowhere = CarryLayout.of(torch.tensor([-1]), torch.tensor([], dtype=torch.int64), 20, torch.device("cpu"))
    assert nowhere.slots_of(torch.tensor([4])).tolist() == [-1]
