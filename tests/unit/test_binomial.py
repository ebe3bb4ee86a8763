"""Clopper–Pearson bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.binomial import lower_bound, upper_bound


@pytest.mark.parametrize("n", [1, 10, 300, 5000])
def test_none_of_n_has_a_closed_form(n: int) -> None:
    assert upper_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-9)
    assert lower_bound(n, n) == pytest.approx(0.05 ** (1 / n), rel=1e-9)


def test_known_values() -> None:
    # Two-sided 95 % for 5 of 20 is [0.0866, 0.4910]: Agresti and Coull, or any table.
    assert lower_bound(5, 20, 0.975) == pytest.approx(0.08657, abs=1e-5)
    assert upper_bound(5, 20, 0.975) == pytest.approx(0.49105, abs=1e-5)


def test_of_nothing_nothing_is_known() -> None:
    assert (lower_bound(0, 0), upper_bound(0, 0)) == (0.0, 1.0)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_bound_leaves_exactly_the_rest_of_the_probability(case: tuple[int, int]) -> None:
    hits, n = case
    rate = upper_bound(hits, n)
    assert hits / n <= rate <= 1.0
    if hits < n:
        below = math.fsum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(hits + 1))
        assert below == pytest.approx(0.05, abs=1e-6)
