"""The gate's thresholds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.editing.calibration import HIGHEST, LOWEST_ALONE, LOWEST_WITH_SUBJECT, calibrate
from onceedit_vllm.editing.probe import Reading

ALPHAS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40)


def readings(alphas: list[float], evidences: list[float] | None = None) -> list[Reading]:
    pairs = zip(alphas, alphas if evidences is None else evidences, strict=True)
    return [Reading(1.0, True, alpha, evidence) for alpha, evidence in pairs]


def test_separable_alphas_are_separated() -> None:
    found = calibrate(readings([0.9, 0.95, 0.99]), readings([0.3, 0.01]), readings([0.6, 0.2]))
    assert 0.3 < found.with_subject.threshold < 0.9
    assert 0.6 < found.alone.threshold < 0.9
    assert (found.alone.true_positive_rate, found.alone.false_positive_rate) == (1.0, 0.0)
    assert "3 held-out wordings" in found.alone.reason


def test_what_names_no_subject_moves_the_threshold_of_alpha_alone_only() -> None:
    asked, named = readings([0.6]), readings([0.01])
    quiet, loud = (calibrate(asked, named, readings([alpha])) for alpha in (0.01, 0.59))
    assert quiet.with_subject == loud.with_subject
    assert loud.alone.threshold > quiet.alone.threshold


def test_alone_a_false_opening_costs_more_than_a_missed_one() -> None:
    found = calibrate(readings([0.7, 0.9, 0.9]), readings([0.8]), readings([0.1, 0.1]))
    assert found.alone.false_positive_rate == 0.0
    assert found.alone.true_positive_rate == pytest.approx(2 / 3)


@given(ALPHAS, ALPHAS, ALPHAS)
def test_thresholds_stay_in_range_and_rates_are_true(
    positives: list[float], same_subject: list[float], others: list[float]
) -> None:
    found = calibrate(readings(positives), readings(same_subject), readings(others))
    for one, negatives, lowest in (
        (found.with_subject, same_subject, LOWEST_WITH_SUBJECT),
        (found.alone, [*same_subject, *others], LOWEST_ALONE),
    ):
        assert lowest <= one.threshold <= HIGHEST
        assert one.true_positive_rate == sum(a >= one.threshold for a in positives) / len(positives)
        assert one.false_positive_rate == sum(a >= one.threshold for a in negatives) / len(negatives)


def test_with_a_subject_the_evidence_counts_and_alone_alpha() -> None:
    asked = readings([0.55, 0.6], [0.9, 0.95])
    named = readings([0.58, 0.9], [0.2, 0.3])
    found = calibrate(asked, named, readings([0.01]))
    assert 0.3 < found.with_subject.threshold < 0.9
    assert found.with_subject.false_positive_rate == 0.0
    assert found.alone.true_positive_rate < 1.0
