"""The gate's thresholds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.binomial import lower_bound, upper_bound
from onceedit_vllm.editing.calibration import (
    HIGHEST,
    LOWEST_ALONE,
    LOWEST_WITH_SUBJECT,
    Strata,
    Thresholds,
    calibrate,
    gate_rates,
)
from onceedit_vllm.editing.probe import Reading
from onceedit_vllm.errors import BadInputError

ALPHAS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40)


def readings(alphas: list[float], evidences: list[float] | None = None) -> list[Reading]:
    pairs = zip(alphas, alphas if evidences is None else evidences, strict=True)
    return [Reading(1.0, True, alpha, evidence) for alpha, evidence in pairs]


def calibrated(asked: list[Reading], same_subject: list[Reading], others: list[Reading]) -> Thresholds:
    return calibrate(Strata(asked, same_subject=same_subject, unrelated=others))


def test_separable_alphas_are_separated() -> None:
    asked = readings([0.9, 0.95, 0.99], [0.99, 0.995, 0.999])
    found = calibrated(asked, readings([0.3, 0.01]), readings([0.6, 0.2]))
    assert 0.3 < found.with_subject.threshold < 0.9
    assert 0.6 < found.alone.threshold < 0.9
    assert (found.alone.true_positive_rate, found.alone.false_positive_rate) == (1.0, 0.0)
    assert "3 held-out wordings" in found.alone.reason


def test_what_names_no_subject_moves_the_threshold_of_alpha_alone_only() -> None:
    asked, named = readings([0.6]), readings([0.01])
    quiet, loud = (calibrated(asked, named, readings([alpha])) for alpha in (0.01, 0.59))
    assert quiet.with_subject == loud.with_subject
    assert loud.alone.threshold > quiet.alone.threshold


def test_alone_a_false_opening_costs_more_than_a_missed_one() -> None:
    found = calibrated(readings([0.7, 0.9, 0.9]), readings([0.8]), readings([0.1, 0.1]))
    assert found.alone.false_positive_rate == 0.0
    assert found.alone.true_positive_rate == pytest.approx(2 / 3)


@given(ALPHAS, ALPHAS, ALPHAS)
def test_thresholds_stay_in_range_and_rates_are_true(
    positives: list[float], same_subject: list[float], others: list[float]
) -> None:
    found = calibrated(readings(positives), readings(same_subject), readings(others))
    for one, negatives, lowest in (
        (found.with_subject, same_subject, LOWEST_WITH_SUBJECT),
        (found.alone, [*same_subject, *others], LOWEST_ALONE),
    ):
        assert lowest <= one.threshold <= HIGHEST
        assert one.true_positive_rate == sum(a >= one.threshold for a in positives) / len(positives)
        assert one.false_positive_rate == sum(a >= one.threshold for a in negatives) / len(negatives)


def test_with_a_subject_the_evidence_counts_and_alone_alpha() -> None:
    asked = readings([0.55, 0.6], [0.99, 0.995])
    named = readings([0.58, 0.9], [0.2, 0.3])
    found = calibrated(asked, named, readings([0.01]))
    assert 0.3 < found.with_subject.threshold < 0.9
    assert found.with_subject.false_positive_rate == 0.0
    assert found.alone.true_positive_rate < 1.0


def test_what_the_user_gives_counts_as_it_was_measured() -> None:
    generated = Strata(readings([0.99] * 20), same_subject=readings([0.2] * 20), unrelated=readings([0.01]))
    before = calibrate(generated).with_subject.threshold
    shut = calibrate(generated._replace(named=readings([before + 0.05]))).with_subject
    opened = calibrate(generated._replace(asked=readings([before - 0.05]))).with_subject
    assert opened.threshold < before < before + 0.05 < shut.threshold
    assert "of the user's on 0 of 1 that do not" in shut.reason
    assert "of the user's on 1 of 1 that ask for an edit" in opened.reason


def test_the_users_unnamed_prompts_move_alpha_alone_only() -> None:
    generated = Strata(readings([0.9] * 9), same_subject=readings([0.1] * 9), unrelated=readings([0.1] * 9))
    before, after = calibrate(generated), calibrate(generated._replace(unnamed=readings([0.8])))
    assert before.with_subject == after.with_subject
    assert before.alone.threshold < 0.8 < after.alone.threshold


def test_a_promised_rate_is_kept_at_the_bound_not_at_the_share() -> None:
    negatives = readings([0.01] * 98 + [0.5, 0.6])
    strata = Strata(readings([0.98] * 50), same_subject=negatives, unrelated=readings([0.01]))
    free, kept = calibrate(strata), calibrate(strata, 0.03)
    assert free.with_subject.false_positive_rate == pytest.approx(0.02)
    assert kept.with_subject.threshold > 0.6
    assert upper_bound(0, 100) <= 0.03 < upper_bound(1, 100)
    assert "at most 3.00% false openings, at 95 %: 2.95%" in kept.with_subject.reason


def test_a_rate_that_so_few_texts_cannot_rule_out_is_refused() -> None:
    strata = Strata(readings([0.9]), same_subject=readings([0.01] * 10), unrelated=readings([0.01]))
    with pytest.raises(BadInputError, match=r"with 10 texts .* the bound is 25\.89% .* give more prompts"):
        calibrate(strata, 0.01)


def test_rates_of_every_kind_with_their_bounds() -> None:
    strata = Strata(readings([0.9, 0.8]), readings([0.3] * 4), readings([0.4] * 5), unrelated=readings([0.1]))
    found = calibrate(strata)
    thresholds = found._replace(with_subject=found.with_subject._replace(threshold=0.35))
    rates = {(each.texts, each.decided_by): each for each in gate_rates(strata, thresholds)}
    prompts = rates["the edits' prompts", "subject"]
    assert (prompts.asks, prompts.n, prompts.opened) == (True, 2, 2)
    assert prompts.bound == pytest.approx(lower_bound(2, 2), abs=1e-4)
    others = rates["other questions about their subjects", "subject"]
    assert (others.asks, others.n, others.opened, others.bound) == (False, 5, 5, 1.0)
    assert ("unrelated prompts", "subject") not in rates
    assert rates["unrelated prompts", "weight"].bound == pytest.approx(0.95, abs=1e-4)
    assert not [kind for kind in rates if kind[0].startswith("your")]
