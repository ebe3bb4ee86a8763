"""Bounds of the fused distribution: the product in float64 never crosses them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from onceedit_vllm.config import MapKind
from onceedit_vllm.dense import bounds
from onceedit_vllm.dense.bounds import Side
from onceedit_vllm.dense.lines import MapLines
from onceedit_vllm.dense.maps import DenseMap
from onceedit_vllm.dense.statistics import build_dense_map
from tests.unit.alignment.toys import toy_embeddings

KINDS: list[MapKind] = ["calibrated", "eq16", "deepen"]
SIZES = (60, 90)
A, ROWS = 40, 6


def matrix_of(each: DenseMap) -> Tensor:
    """(V, A) float64, softmax of the scaled cosines as the paper writes it."""
    unit = each.embeddings.double() - each.center.double()
    unit /= unit.norm(dim=1, keepdim=True)
    return (each.scale.double()[:, None] * unit @ unit[each.anchor_ids].T).softmax(dim=1)


def make_weights(shape: str, size: int) -> Tensor:
    """(ROWS, size) float32 probabilities times alpha or 1 - alpha."""
    generator = torch.Generator().manual_seed(size)
    noise = torch.randn(ROWS, size, generator=generator)
    weights = {"flat": noise * 0.1, "sharp": noise * 8, "mixed": noise * torch.logspace(-1, 1, ROWS)[:, None]}
    return weights[shape].softmax(dim=1) * torch.rand(ROWS, 1, generator=generator)


@pytest.fixture(params=KINDS, scope="module")
def maps(request: pytest.FixtureRequest) -> list[DenseMap]:
    generator = torch.Generator().manual_seed(1)
    return [
        build_dense_map(
            request.param, toy_embeddings(size, seed=size), torch.randperm(size, generator=generator)[:A]
        )
        for size in SIZES
    ]


def sides_of(maps: list[DenseMap], shape: str) -> list[Side]:
    return [Side(MapLines(each, 1 << 20), make_weights(shape, each.vocab_size)) for each in maps]


def product(sides: list[Side]) -> Tensor:
    """(ROWS, A) float64, the fused distribution from its definition (Eq. 8)."""
    parts = [side.weights.double() @ matrix_of(side.lines.relative_map) for side in sides]
    return parts[0] + parts[1]


@pytest.mark.parametrize("shape", ["flat", "sharp", "mixed"])
@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_no_coordinate_is_outside_the_bounds_by_rows(maps: list[DenseMap], shape: str, size: int) -> None:
    sides = sides_of(maps, shape)
    low, high = bounds.bounds_by_rows(sides, size)
    exact, error = product(sides), bounds.margin(sides, max(SIZES))
    assert (low * (1 - error) <= exact).all()
    assert (exact <= high * (1 + error)).all()


@pytest.mark.parametrize("shape", ["flat", "sharp", "mixed"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_no_coordinate_is_outside_the_bounds_by_entries(maps: list[DenseMap], shape: str, size: int) -> None:
    finalists = torch.tensor([3, 0, 39, 17])
    for row in range(ROWS):
        sides = [side._replace(weights=side.weights[row : row + 1]) for side in sides_of(maps, shape)]
        low, high = bounds.bounds_by_entries(sides, finalists, size)
        exact, error = product(sides)[0, finalists], bounds.margin(sides, max(SIZES))
        assert (low * (1 - error) <= exact).all()
        assert (exact <= high * (1 + error)).all()


@pytest.mark.parametrize("size", [0, 1, 7, 30, 1000])
def test_more_tokens_looked_at_leave_less_room(maps: list[DenseMap], size: int) -> None:
    sides = sides_of(maps, "mixed")
    wide, narrow = (
        torch.sub(*reversed(bounds.bounds_by_rows(sides, looked_at))) for looked_at in (size, size + 20)
    )
    assert (narrow <= wide + 1e-6).all()


def test_nothing_is_left_to_bound_when_all_tokens_are_looked_at(maps: list[DenseMap]) -> None:
    sides = sides_of(maps, "mixed")
    for bound in bounds.bounds_by_rows(sides, max(SIZES)):
        torch.testing.assert_close(bound, product(sides), atol=1e-6, rtol=1e-5)
    finalists = torch.arange(A)
    one = [side._replace(weights=side.weights[:1]) for side in sides]
    for bound in bounds.bounds_by_entries(one, finalists, max(SIZES)):
        torch.testing.assert_close(bound, product(one)[0], atol=1e-6, rtol=1e-5)


def test_entries_are_looked_at_in_parts(maps: list[DenseMap], monkeypatch: pytest.MonkeyPatch) -> None:
    one = [side._replace(weights=side.weights[:1]) for side in sides_of(maps, "flat")]
    finalists = torch.tensor([1, 2, 3])
    whole = bounds.bounds_by_entries(one, finalists, 20)
    monkeypatch.setattr(bounds, "_ENTRIES_AT_ONCE", 10)
    for part, expected in zip(bounds.bounds_by_entries(one, finalists, 20), whole, strict=True):
        torch.testing.assert_close(part, expected, atol=1e-9, rtol=1e-5)


@pytest.mark.parametrize("shape", ["flat", "sharp"])
def test_the_rest_is_bounded_by_its_mass_and_by_its_rows(maps: list[DenseMap], shape: str) -> None:
    each, weights = maps[1], make_weights(shape, SIZES[1])
    ids = torch.stack([torch.randperm(SIZES[1])[:5] for _ in range(ROWS)])
    matrix, remaining = matrix_of(each), weights.double().scatter(1, ids, 0.0)
    rest = bounds.rest_of(each, weights, ids)
    mass = remaining.sum(dim=1)
    assert (rest.least_mass <= mass).all()
    assert (mass <= rest.most_mass).all()
    torch.testing.assert_close(rest.most_mass.double(), mass, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(rest.low.double(), remaining @ matrix.amin(dim=1), atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(rest.high.double(), remaining @ matrix.amax(dim=1), atol=1e-7, rtol=1e-4)


def test_a_token_looked_at_is_no_rest(maps: list[DenseMap]) -> None:
    weights = torch.nn.functional.one_hot(torch.tensor([4]), SIZES[0]).float()
    assert all(float(part) == 0.0 for part in bounds.rest_of(maps[0], weights, torch.tensor([[4]])))


def test_of_two_bounds_the_closer_one_counts() -> None:
    rest = bounds.Rest(*(torch.tensor([value]) for value in (0.4, 0.02, 0.5, 0.3)))
    edges = torch.tensor([0.01, 0.1, 0.9])
    torch.testing.assert_close(bounds.at_least(rest, edges), torch.tensor([[0.02, 0.04, 0.36]]))
    torch.testing.assert_close(bounds.at_most(rest, edges), torch.tensor([[0.005, 0.05, 0.3]]))
    assert torch.equal(bounds.at_most(rest, edges[None]), bounds.at_most(rest, edges))


@pytest.mark.parametrize(
    ("low", "high", "error", "allowed", "expected"),
    [
        ([0.1, 0.5, 0.2], [0.2, 0.6, 0.3], 0.0, None, [1]),
        ([0.1, 0.5, 0.2], [0.2, 0.6, 0.5], 0.0, None, [1, 2]),
        ([0.1, 0.5, 0.2], [0.2, 0.6, 0.49], 0.0, None, [1]),
        ([0.1, 0.5, 0.2], [0.2, 0.6, 0.49], 0.02, None, [1, 2]),
        ([0.1, 0.5, 0.2], [0.2, 0.6, 0.3], 0.0, [True, False, True], [0, 2]),
        ([0.3, 0.3, 0.3], [0.3, 0.3, 0.3], 0.0, None, [0, 1, 2]),
    ],
    ids=["clear", "a tie", "just below", "just below, within the error", "the best is masked", "all equal"],
)
def test_finalists_are_what_nothing_certainly_beats(
    low: list[float], high: list[float], error: float, allowed: list[bool] | None, expected: list[int]
) -> None:
    mask = None if allowed is None else torch.tensor(allowed)
    found = bounds.finalists_of(torch.tensor(low), torch.tensor(high), error, mask)
    assert found.tolist() == expected


@pytest.fixture
def default_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("default_precision")
def test_the_margin_grows_with_the_terms_and_with_coarser_products(maps: list[DenseMap]) -> None:
    sides = sides_of(maps, "flat")
    torch.set_float32_matmul_precision("highest")
    short, long = bounds.margin(sides, 10), bounds.margin(sides, 10_010)
    assert long - short == pytest.approx(10_000 * 2**-24)
    assert short > max(each.rounding for each in maps)
    torch.set_float32_matmul_precision("high")
    assert math.isclose(bounds.margin(sides, 10), 2**13 * short)
