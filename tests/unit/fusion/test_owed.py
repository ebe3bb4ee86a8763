from __future__ import annotations

import math

import pytest
import torch

from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.fusion.owed import Owed, SpellingBook, owe_inplace

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
    mass = torch.zeros(20).index_add_(0, owed.ids, owed.probs)
    assert mass[11] == pytest.approx(2 / 3, abs=1e-6)
    assert mass[12] == pytest.approx(1 / 3, abs=1e-6)
    assert owed.weight == pytest.approx(0.6 / 0.9, abs=1e-6)


def test_a_longer_beginning_comes_first() -> None:
    said = says(t2=0.5, t4=0.5)
    owed = book().owed([10, 11], {2: said}.get)
    assert owed is not None
    assert (owed.ids.tolist(), owed.weight) == ([13], pytest.approx(0.5))


def test_nothing_is_owed_without_a_beginning_a_memory_or_a_meaning() -> None:
    said = says(t0=0.995, t2=0.005)
    assert book().owed([10], {1: said}.get) is None
    assert book().owed([11], {1: says(t2=1.0)}.get) is None
    assert book().owed([10], {}.get) is None
    assert book().owed([], {}.get) is None


def test_owing_keeps_a_distribution_one() -> None:
    carried = torch.tensor([[0.25, 0.25, 0.5], [0.2, 0.3, 0.5]])
    before = carried.clone()
    owe_inplace(
        carried, torch.tensor([10, 11, 12]), [None, Owed(torch.tensor([11]), torch.tensor([1.0]), 0.75)]
    )
    assert torch.equal(carried[0], before[0])
    assert carried[1].tolist() == pytest.approx([0.05, 0.075 + 0.75, 0.125])
    assert float(carried[1].sum()) == pytest.approx(1.0)
