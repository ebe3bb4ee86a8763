from __future__ import annotations

import math

import pytest
import torch

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.fusion.lists import Lists, cut


def whole(mass: torch.Tensor, *, stride: int = 3) -> Lists:
    """Lists of tokens 1, 1 + stride, ..."""
    n, width = mass.shape
    return Lists((1 + stride * torch.arange(width)).expand(n, -1), mass, torch.zeros(n), True)


def falling(width: int, *rates: float) -> Lists:
    """Of each rate a row that falls geometrically, its tokens in disorder."""
    rows = torch.stack([torch.tensor(rate, dtype=torch.float64) ** torch.arange(width) for rate in rates])
    rows /= rows.sum(dim=1, keepdim=True)
    order = torch.randperm(width, generator=torch.Generator().manual_seed(width))
    return whole(rows[:, order].float())


def mass_of(lists: Lists, row: int) -> dict[int, float]:
    pairs = zip(lists.ids[row].tolist(), lists.mass[row].tolist(), strict=True)
    return {token: mass for token, mass in pairs if token >= 0}


def test_the_heaviest_tokens_are_kept_in_order() -> None:
    lists = falling(3000, 0.7, 0.8)
    kept = cut(lists)
    assert kept.ids.shape == (2, 64)
    assert not kept.whole
    for row in range(2):
        heaviest = sorted(mass_of(lists, row).items(), key=lambda pair: -pair[1])[:64]
        assert mass_of(kept, row) == dict(heaviest)
        assert kept.ids[row].tolist() == sorted(kept.ids[row].tolist())


def test_the_tail_is_never_too_small() -> None:
    generator = torch.Generator().manual_seed(0)
    for size, power in ((70, 1.0), (4000, 3.0), (50_000, 8.0)):
        mass = torch.randn(20, size, generator=generator).mul(power).softmax(dim=1)
        mass[:5] *= 1e-38  # Numbers below the smallest normal one.
        lists = whole(mass)
        kept = cut(lists, k=8)
        for row in range(20):
            everything, listed = mass_of(lists, row), mass_of(kept, row)
            rest = math.fsum(value for token, value in everything.items() if token not in listed)
            assert rest <= float(kept.tail[row]) <= rest * (1 + 1e-5) + 1e-44


def test_no_longer_a_list_stays_as_it_is() -> None:
    lists = falling(64, 0.99)
    assert cut(lists) is lists
    assert cut(lists, k=100) is lists


def test_what_was_cut_stays_in_the_tail() -> None:
    lists = falling(3000, 0.99, 0.9)
    once = cut(lists, k=256)
    twice = cut(once, k=16)
    directly = cut(lists, k=16)
    assert torch.equal(twice.ids, directly.ids)
    assert torch.equal(twice.mass, directly.mass)
    torch.testing.assert_close(twice.tail, directly.tail, rtol=1e-5, atol=0)
    assert (twice.tail >= directly.tail * (1 - 1e-6)).all()


def test_a_bad_row_stays_bad_and_short() -> None:
    lists = falling(3000, 0.7, 0.7, 0.99)
    lists.tail[1] = math.nan
    kept = cut(lists)
    assert kept.tail.isnan().tolist() == [False, True, False]
    assert (kept.ids >= 0).sum(dim=1).tolist() == [64, 64, 64]


def test_a_row_of_nothing() -> None:
    kept = cut(whole(torch.zeros(2, 500)))
    assert kept.tail.tolist() == [0.0, 0.0]
    assert cut(whole(torch.zeros(0, 500))).ids.shape == (0, 64)


@pytest.mark.parametrize("k", [0, -1])
def test_bad_sizes_are_refused(k: int) -> None:
    with pytest.raises(BadInputError, match=f"k={k}"):
        cut(falling(100, 0.9), k=k)


def test_moving_keeps_one_row_of_tokens() -> None:
    lists = falling(100, 0.9, 0.8)
    assert lists.to(torch.device("cpu")).ids is lists.ids
    moved = lists.to(torch.device("meta"))
    assert (moved.ids.shape, moved.ids.stride(0), moved.whole) == ((2, 100), 0, True)
    kept = cut(lists, k=8).to(torch.device("meta"))
    assert (kept.ids.shape, kept.mass.shape, kept.tail.shape) == ((2, 8), (2, 8), (2,))


def test_some_rows() -> None:
    lists, entries = falling(100, 0.9, 0.8, 0.7), torch.tensor([2, 0])
    for each in (lists, cut(lists, k=8)):
        taken = each.take(entries)
        assert taken.whole == each.whole
        assert torch.equal(taken.ids, each.ids[entries])
        assert torch.equal(taken.mass, each.mass[entries])
        assert torch.equal(taken.tail, each.tail[entries])
    assert lists.take(entries).ids.data_ptr() == lists.ids.data_ptr()
    assert lists.take(entries[:0]).ids.shape == (0, 100)
