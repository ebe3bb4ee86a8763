"""The gate's threshold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.editing.calibration import HIGHEST, LOWEST, calibrate

ALPHAS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40)


def test_separable_alphas_are_separated() -> None:
    found = calibrate([0.9, 0.95, 0.99], [0.01, 0.6, 0.2])
    assert 0.6 < found.threshold < 0.9
    assert (found.true_positive_rate, found.false_positive_rate) == (1.0, 0.0)
    assert "3 held-out wordings" in found.reason


def test_a_false_opening_costs_more_than_a_missed_one() -> None:
    found = calibrate([0.7, 0.9, 0.9], [0.8, 0.1, 0.1])
    assert found.false_positive_rate == 0.0
    assert found.true_positive_rate == pytest.approx(2 / 3)


@given(ALPHAS, ALPHAS)
def test_threshold_stays_in_range_and_rates_are_true(positives: list[float], negatives: list[float]) -> None:
    found = calibrate(positives, negatives)
    assert LOWEST <= found.threshold <= HIGHEST
    assert found.true_positive_rate == sum(a >= found.threshold for a in positives) / len(positives)
    assert found.false_positive_rate == sum(a >= found.threshold for a in negatives) / len(negatives)
