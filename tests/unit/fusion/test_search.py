from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onceedit_vllm.config import FusionConfig
from onceedit_vllm.fusion.reference import search
from onceedit_vllm.fusion.search import FLOOR, adamw_logits, exact_logits, search_columns


def dense_search(
    llm_map: torch.Tensor, coordinate: int, allowed: torch.Tensor, steps: int = 5
) -> torch.Tensor:
    target = llm_map.new_zeros(llm_map.shape[1])
    target[coordinate] = 1.0
    return search(llm_map, target, llm_map.new_zeros(len(llm_map)), steps=steps, allowed=allowed)


def random_case(seed: int, sharpness: float, num_tokens: int = 40, num_coordinates: int = 15) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    llm_map = (sharpness * torch.randn(num_tokens, num_coordinates, generator=generator)).softmax(dim=1)
    allowed = torch.rand(4, num_tokens, generator=generator) < 0.7
    allowed[0] = True
    allowed[:, 0] = True
    coordinates = torch.randint(0, num_coordinates, (4,), generator=generator)
    return llm_map, coordinates, allowed


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.01, 1.0, 10.0]),
    steps=st.integers(1, 7),
)
def test_the_column_search_is_the_dense_search(seed: int, sharpness: float, steps: int) -> None:
    """In double precision, where nothing is lost at entries that lie close to the mean."""
    llm_map, coordinates, allowed = random_case(seed, sharpness)
    llm_map = llm_map.double()
    found = adamw_logits(llm_map[:, coordinates].T, allowed, 15, steps=steps, learning_rate=0.15)
    for row, coordinate in enumerate(coordinates.tolist()):
        expected = dense_search(llm_map, coordinate, allowed[row], steps)
        assert torch.equal(found[row] == -math.inf, ~allowed[row])
        torch.testing.assert_close(found[row], expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_in_single_precision_too(seed: int) -> None:
    llm_map, coordinates, allowed = random_case(seed, 1.0)
    found = adamw_logits(llm_map[:, coordinates].T, allowed, 15, steps=5, learning_rate=0.15)
    assert found.dtype == torch.float32
    for row, coordinate in enumerate(coordinates.tolist()):
        expected = dense_search(llm_map, coordinate, allowed[row])
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("peak", [3.0, 300.0], ids=["flat", "peaked"])
def test_at_the_width_of_a_real_vocabulary(peak: float) -> None:
    num_tokens, num_coordinates = 49152, 64
    torch.manual_seed(0)
    scores = torch.randn(num_tokens, num_coordinates)
    scores[torch.arange(num_coordinates), torch.arange(num_coordinates)] += peak
    llm_map = scores.softmax(dim=1)
    allowed = torch.ones(2, num_tokens, dtype=torch.bool)
    allowed[1, ::3] = False
    coordinates = torch.tensor([7, 11])
    found = adamw_logits(llm_map[:, coordinates].T, allowed, num_coordinates, steps=5, learning_rate=0.15)
    for row, coordinate in enumerate(coordinates.tolist()):
        expected = dense_search(llm_map, coordinate, allowed[row])
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=0)
        assert found[row].argmax() == expected.argmax() == llm_map[:, coordinate].argmax()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), sharpness=st.sampled_from([1.0, 3.0, 10.0]))
def test_the_solvers_agree_on_the_token(seed: int, sharpness: float) -> None:
    """Seen on all maps that are not almost flat; nothing guarantees it after the first step."""
    llm_map, coordinates, allowed = random_case(seed, sharpness)
    columns = llm_map[:, coordinates].T
    exact = search_columns(columns, allowed, 15, FusionConfig(solver="exact"))
    walked = search_columns(columns, allowed, 15, FusionConfig(solver="adamw"))
    assert torch.equal(exact.argmax(dim=1), walked.argmax(dim=1))


def test_levelled_gradients_keep_their_order() -> None:
    """Logits that differ by less than float32 can tell: the best token still comes out first."""
    llm_map, coordinates, allowed = random_case(18, 10.0)
    columns = llm_map[:, coordinates].T
    best = exact_logits(columns, allowed).argmax(dim=1)
    walked = adamw_logits(columns, allowed, 15, steps=5, learning_rate=0.15)
    assert torch.equal(best, walked.argmax(dim=1))
    top = walked[0].topk(2).values
    assert 0 < float(top[0] - top[1]) < 1e-6


def test_the_exact_solver_is_the_limit_of_the_walk() -> None:
    llm_map, coordinates, allowed = random_case(5, 3.0)
    columns = llm_map[:, coordinates].T
    walked = adamw_logits(columns, allowed, 15, steps=4000, learning_rate=0.15).softmax(dim=1)
    assert (walked.gather(1, exact_logits(columns, allowed).argmax(1, keepdim=True)) > 0.5).all()


def test_the_settings_reach_the_solver() -> None:
    llm_map, coordinates, allowed = random_case(1, 1.0)
    columns = llm_map[:, coordinates].T
    config = FusionConfig(solver="adamw", search_steps=2, search_learning_rate=0.3)
    expected = adamw_logits(columns, allowed, 15, steps=2, learning_rate=0.3)
    assert torch.equal(search_columns(columns, allowed, 15, config), expected)


def test_exact_logits_are_finite_where_allowed_and_strict_at_the_winner() -> None:
    low = torch.tensor(1e-20)
    above = torch.nextafter(low, torch.tensor(1.0))
    assert above.log() == low.log(), "the logarithm cannot tell them apart"
    columns = torch.stack(
        [
            torch.stack([low, above, torch.tensor(0.0), low]),
            torch.tensor([0.2, 0.9, 0.9, 0.0]),
            torch.tensor([0.0, 1.0, 0.0, 0.0]),
        ]
    )
    allowed = torch.tensor([[True] * 4, [True] * 4, [True, False, True, True]])
    logits = exact_logits(columns, allowed)
    assert logits.argmax(dim=1).tolist() == [1, 1, 0], "the lowest of equals"
    assert (logits[0] == logits[0, 1]).sum() == (logits[1] == logits[1, 1]).sum() == 1
    assert logits[0, 2] == FLOOR
    assert torch.equal(logits == -math.inf, ~allowed)


def test_no_rows_and_strided_columns() -> None:
    llm_map, coordinates, allowed = random_case(1, 1.0)
    columns = llm_map[:, coordinates].T
    assert not columns.is_contiguous()
    for solver in ("exact", "adamw"):
        config = FusionConfig(solver=solver)
        assert search_columns(columns[:0], allowed[:0], 15, config).shape == (0, 40)
        contiguous = search_columns(columns.contiguous(), allowed, 15, config)
        assert torch.equal(search_columns(columns, allowed, 15, config), contiguous)
