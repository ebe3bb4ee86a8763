"""Shares and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from onceedit_vllm.evaluation.estimates import estimate


def test_every_question_counts_once_and_records_are_drawn_whole() -> None:
    found = estimate([[1.0, 1.0, 1.0], [0.0], []])
    assert (found.value, found.n) == (0.75, 4)
    # Only three draws of two records are possible: both the first, both the second, one of each.
    assert (found.low, found.high) == (0.0, 1.0)


def test_the_interval_is_that_of_the_textbook() -> None:
    scores = [[float(at < 80)] for at in range(100)]
    found = estimate(scores)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 100)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.015)
    assert found.high == pytest.approx(0.8 + half, abs=0.015)
    assert estimate(scores) == found


def test_questions_of_one_record_are_no_evidence_of_their_own() -> None:
    together = estimate([[float(at < 8)] * 10 for at in range(10)])
    apart = estimate([[float(at < 80)] for at in range(100)])
    assert together.value == apart.value == 0.8
    assert together.low is not None
    assert apart.low is not None
    assert together.low < apart.low - 0.1


def test_nothing_asked_is_no_value() -> None:
    assert estimate([[], []]).model_dump() == {"value": None, "low": None, "high": None, "n": 0}
