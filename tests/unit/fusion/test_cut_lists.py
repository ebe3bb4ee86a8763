"""Fusing with cut lists: every token that is certified is that of the whole list, whatever was cut."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from onceedit_vllm.config import FusionConfig, Solver
from onceedit_vllm.fusion import reference
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.fusion.counts import FuseCounts
from onceedit_vllm.fusion.fuser import Fuser
from onceedit_vllm.fusion.lists import Lists, cut
from tests.unit.alignment.toys import toy_alignment
from tests.unit.fusion.path_cases import DEVICE, INF, NAN, same_bits

V = 24
ALIGNMENT = toy_alignment("textual", plugin_size=V, llm_size=V)


class Fused(NamedTuple):
    """The new logits, the entries that want a whole list, and the counts."""

    logits: Tensor
    uncertified: list[int]
    counts: FuseCounts


def fuse(
    logits: Tensor, lists: Lists, alpha: Tensor, *, search: bool = True, solver: Solver = "exact"
) -> Fused:
    fuser, fused, n = Fuser(ALIGNMENT, FusionConfig(solver=solver), DEVICE), logits.to(DEVICE), len(alpha)
    fused = fused.clone()
    uncertified = fuser.fuse_rows_inplace(fused, torch.arange(n), lists, alpha, torch.full((n,), search))
    for entry in uncertified:
        assert same_bits(fused[entry].cpu(), logits[entry])
    return Fused(fused.cpu(), uncertified, fuser.counts())


def whole(mass: Tensor) -> Lists:
    """Of every token of the vocabulary."""
    return Lists(torch.arange(mass.shape[1]).expand(len(mass), -1), mass, torch.zeros(len(mass)), True)


def exact_p(logits: Tensor, mass: Tensor, alpha: Tensor) -> Tensor:
    """Eq. 8 by the reference in float64; masked tokens get -1."""
    same = torch.eye(mass.shape[1], dtype=torch.float64)
    p_l, weight = logits.double().softmax(dim=1), alpha.double()
    fused = reference.fuse(mass.double(), same, p_l, same, weight)
    return fused.masked_fill(logits == -INF, -1.0)


def steps(seed: int, n: int, *, masked: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, mass and alpha: both models from clueless to certain, all weights, 0 and 1 among them."""
    generator = torch.Generator().manual_seed(seed)
    scale = 8 * torch.rand(n, 2, 1, generator=generator)
    logits, said = (scale * torch.randn(n, 2, V, generator=generator)).unbind(1)
    logits[torch.rand(n, V, generator=generator) < masked] = -INF
    logits[:, 3] = logits[:, 3].clamp(min=-9.0)
    alpha = torch.rand(n, generator=generator)
    alpha[::7], alpha[1::7], alpha[2::7] = 0.0, 1.0, 1 - 1e-3 * alpha[2::7]
    return logits, said.softmax(dim=1), alpha


@pytest.mark.parametrize("masked", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("k", [1, 2, 5, V - 1])
def test_a_certified_token_wins_wherever_the_tail_lies(k: int, masked: float) -> None:
    """Not only with what was cut, but with the worst that could have been: all of it on one token."""
    logits, mass, alpha = steps(k, 400, masked=masked)
    lists = cut(whole(mass), k)
    found = fuse(logits, lists, alpha)
    certified = [entry for entry in range(400) if entry not in found.uncertified]
    counts, searched = found.counts, len(certified) - found.counts.left
    assert counts.left == 0 or masked > 0
    assert (counts.searched, counts.cut_certified) == (searched, searched)
    assert counts.cut_uncertified == len(found.uncertified)
    assert certified
    assert found.uncertified or k == V - 1
    p = exact_p(logits, mass, alpha)
    listed = torch.zeros(400, V, dtype=torch.bool).scatter_(1, lists.ids, True)
    at_most = torch.minimum(lists.mass.amin(dim=1), lists.tail)
    for entry in certified:
        winner = int(found.logits[entry].argmax())
        if alpha[entry] == 1 and p[entry].amax() <= 0:
            continue  # Left to the LLM: nothing is allowed that the plug-in can say.
        assert winner == int(p[entry].argmax())
        known = exact_p(logits, mass.masked_fill(~listed, 0.0), alpha)[entry]
        worst = known + float(alpha[entry] * at_most[entry]) * ~listed[entry]
        worst[logits[entry] == -INF] = -1.0
        worst[winner] = known[winner]
        assert int(worst.argmax()) == winner


def test_enough_steps_are_certified() -> None:
    """Behind an open gate nearly all, so that the test before is not about nothing."""
    logits, mass, alpha = steps(1, 500)
    lists = cut(whole(mass), 5)
    assert len(fuse(logits, lists, torch.ones(500)).uncertified) == 0
    assert 5 < len(fuse(logits, lists, alpha).uncertified) < 250


def test_twenty_thousand_steps_say_the_same_cut_and_whole() -> None:
    """By the whole list on request, as in a run: no token differs from the reference in float64."""
    logits, mass, alpha = steps(2, 20_000)
    lists = whole(mass)
    found = fuse(logits, cut(lists, 5), alpha)
    again = torch.tensor(found.uncertified)
    rest = fuse(logits[again], lists.take(again), alpha[again])
    found.logits[again] = rest.logits
    p = exact_p(logits, mass, alpha)
    assert torch.equal(found.logits.argmax(dim=1), p.argmax(dim=1))
    assert torch.equal(fuse(logits, lists, alpha).logits, found.logits)


def border(gap: float, *, mass_inside: float = 0.3, alpha: float = 0.5) -> Fused:
    """Token 4 is listed, token 2 is not: what it may have of the tail makes them equal but for a gap."""
    tail = 0.1
    ids, mass = torch.tensor([[4, 9]]), torch.tensor([[mass_inside, 0.2]])
    # (1 - alpha) (p_4 - p_2) = alpha (tail - mass), with p_4 = x and p_2 = 1 - x.
    x = 0.5 + 0.5 * alpha * (tail - mass_inside) / (1 - alpha) + gap
    logits = torch.full((1, V), -1e4)
    logits[0, 4], logits[0, 2] = math.log(x), math.log(1 - x)
    return fuse(logits, Lists(ids, mass, torch.tensor([tail]), False), torch.tensor([alpha]))


@pytest.mark.parametrize("mass_inside", [0.11, 0.3, 0.7])
def test_near_ties_across_the_border(mass_inside: float) -> None:
    ahead = border(1e-4, mass_inside=mass_inside)
    assert ahead.uncertified == []
    assert int(ahead.logits.argmax()) == 4
    # A tie, or one that float32 might have got wrong: the lowest id of equals would be token 2.
    for gap in (0.0, 1e-8, -1e-8, -1e-4):
        assert border(gap, mass_inside=mass_inside).uncertified == [0]


def test_the_tail_counts_no_further_than_the_smallest_one_listed() -> None:
    """Half of the mass is cut, but no token of it has more than 0.05."""
    lists = Lists(torch.tensor([[4, 9]]), torch.tensor([[0.45, 0.05]]), torch.tensor([0.5]), False)
    logits = torch.zeros(1, V)
    assert fuse(logits, lists, torch.tensor([1.0])).uncertified == []
    assert fuse(logits, lists, torch.tensor([0.5])).uncertified == []
    even = lists._replace(mass=torch.tensor([[0.25, 0.25]]))
    assert fuse(logits, even, torch.tensor([1.0])).uncertified == [0]


def test_the_llms_own_best_wins_outside_the_list() -> None:
    lists = Lists(torch.tensor([[4, 9]]), torch.tensor([[0.89, 0.06]]), torch.tensor([0.05]), False)
    logits = torch.zeros(1, V)
    logits[0, 7] = 9.0
    found = fuse(logits, lists, torch.tensor([0.2]))
    assert found.uncertified == []
    assert int(found.logits.argmax()) == 7
    # Its equal could have what is not listed.
    logits[0, 2] = 9.0
    assert fuse(logits, lists, torch.tensor([0.2])).uncertified == [0]


def test_a_lone_rival_is_masked() -> None:
    """Nothing allowed is outside the list: nobody can have the tail."""
    lists = Lists(torch.tensor([[4, 9]]), torch.tensor([[0.3, 0.3]]), torch.tensor([0.4]), False)
    logits = torch.full((1, V), -INF)
    logits[0, 4], logits[0, 9] = 0.1, 0.0
    found = fuse(logits, lists, torch.tensor([0.9]))
    assert found.uncertified == []
    assert int(found.logits.argmax()) == 4


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_all_that_is_listed_is_masked(alpha: float, search: bool) -> None:
    _, mass, _ = steps(3, 2)
    lists, logits = cut(whole(mass), 4), torch.zeros(2, V)
    logits[0, lists.ids[0]] = -INF
    found = fuse(logits, lists, torch.full((2,), alpha), search=search)
    assert found.uncertified == [0]
    assert found.counts == FuseCounts(
        searched=int(search), sampled=int(not search), cut_certified=int(search), cut_uncertified=1
    )


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_without_a_tail_a_cut_list_is_a_whole_one(alpha: float, search: bool) -> None:
    """Ties and masks included: nothing is cut, so nothing can go wrong."""
    logits, mass, _ = steps(4, 60, masked=0.5)
    logits[:20] = logits[:20].round()
    mass[:, 6:] = 0.0
    mass[:20] = (4 * mass[:20]).round() / 4
    weights, lists = torch.full((60,), alpha), whole(mass)
    kept = cut(lists, 8)
    assert not kept.whole
    assert kept.tail.tolist() == [0.0] * 60
    by_cut, by_whole = (fuse(logits, each, weights, search=search) for each in (kept, lists))
    assert by_cut.uncertified == []
    if search:
        assert torch.equal(by_cut.logits, by_whole.logits)
    torch.testing.assert_close(by_cut.logits, by_whole.logits, atol=1e-6, rtol=1e-5)
    assert by_cut.counts._replace(cut_certified=0) == by_whole.counts


@pytest.mark.parametrize("search", [True, False])
def test_without_weight_the_llm_is_certain(search: bool) -> None:
    logits, mass, _ = steps(5, 50, masked=0.3)
    found = fuse(logits, cut(whole(mass), 2), torch.zeros(50), search=search)
    assert found.uncertified == []
    assert torch.equal(found.logits.argmax(dim=1), logits.argmax(dim=1))


def test_bad_rows_are_left_and_want_nothing() -> None:
    logits, mass, _ = steps(6, 6)
    lists, alpha = cut(whole(mass), 4), torch.full((6,), 1.0)
    logits[1, 5], lists.tail[2], alpha[3], lists.mass[4, 1] = NAN, NAN, 1.5, INF
    found = fuse(logits, lists, alpha)
    assert found.uncertified == []
    assert found.counts == FuseCounts(searched=2, left=4, cut_certified=2)
    for entry in (1, 2, 3, 4):
        assert same_bits(found.logits[entry], logits[entry])


def test_rows_of_other_lengths_and_rows_that_stand_for_none() -> None:
    logits, mass, _ = steps(7, 4)
    mass.fill_(1 / V)
    lists = cut(whole(mass), 16)
    lists.ids[0], lists.mass[0] = -1, 0.0
    lists.tail[0] = 1e-5
    lists.ids[0, :2], lists.mass[0, :2] = torch.tensor([5, 12]), torch.tensor([0.1, 0.9])
    fused, fuser = logits.clone().to(DEVICE), Fuser(ALIGNMENT, FusionConfig(), DEVICE)
    rows, search = torch.tensor([2, -1, 0, 3]), torch.tensor([True, True, True, False])
    assert fuser.fuse_rows_inplace(fused, rows, lists, torch.ones(4), search) == [2]
    assert fuser.counts() == FuseCounts(searched=1, sampled=1, cut_certified=1, cut_uncertified=1)
    assert int(fused[2].argmax()) == 12
    assert same_bits(fused[[0, 1]].cpu(), logits[[0, 1]])


def test_a_list_of_nothing_but_its_tail_is_not_enough() -> None:
    lists = Lists(torch.full((1, 3), -1), torch.zeros(1, 3), torch.tensor([1.0]), False)
    logits = torch.zeros(1, V)
    logits[0, 4] = 9.0
    assert fuse(logits, lists, torch.tensor([0.5])).uncertified == [0]
    assert fuse(logits, lists._replace(tail=torch.zeros(1)), torch.tensor([0.5])).uncertified == []


@pytest.mark.parametrize("masked", [0.0, 0.5])
@pytest.mark.parametrize("k", [1, 4, 12])
def test_sampled_rows_are_as_far_off_as_is_said(k: int, masked: float) -> None:
    """Total variation against the reference, at most alpha tail / (1 - alpha + alpha q)."""
    logits, mass, alpha = steps(8 + k, 300, masked=masked)
    lists = cut(whole(mass), k)
    found = fuse(logits, lists, alpha, search=False)
    sampled = [entry for entry in range(300) if entry not in found.uncertified]
    p = exact_p(logits, mass, alpha).clamp(min=0)
    q = mass.double().masked_fill(logits == -INF, 0.0).sum(dim=1)
    bound = alpha * lists.tail / (1 - alpha + alpha * q)
    off = 0.5 * (found.logits.double().exp() - p / p.sum(dim=1, keepdim=True)).abs().sum(dim=1)
    assert len(sampled) > 150
    assert (off[sampled] <= bound[sampled] + 1e-6).all()
    # Without masks, and where the LLM has no say, it is as far off as that: the bound cannot be halved.
    alone = (alpha == 1) & (lists.tail > 1e-4) & (logits > -INF).all(dim=1)
    assert (off[alone] > 0.5 * bound[alone]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cut_at_the_width_of_real_vocabularies(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    alignment = toy_alignment("textual", plugin_size=49153, llm_size=128256, num_anchors=30000)
    logits = (4 * torch.randn(8, 128256)).to(dtype)
    log_probs = (4 * torch.randn(8, 49153)).log_softmax(dim=1)
    lists = Carrier.of(alignment, 128256, 49153).carry(log_probs)
    alpha = torch.tensor([0.0, 0.5, 0.99, 1.0]).repeat(2)
    by_whole = fuse(logits, lists, alpha)
    by_cut = fuse(logits, cut(lists), alpha)
    assert len(by_cut.uncertified) < 4
    for entry in set(range(8)) - set(by_cut.uncertified):
        assert torch.equal(by_cut.logits[entry], by_whole.logits[entry])


def test_the_papers_iterate_of_a_certified_row() -> None:
    logits, mass, alpha = steps(9, 100)
    lists = whole(mass)
    by_cut = fuse(logits, cut(lists, 5), alpha, solver="adamw")
    by_whole = fuse(logits, lists, alpha, solver="adamw")
    certified = [entry for entry in range(100) if entry not in by_cut.uncertified]
    assert 0 < len(certified) < 100
    assert torch.equal(by_cut.logits[certified], by_whole.logits[certified])
