from __future__ import annotations

import json
import math

import pytest

from onceedit_vllm.runner.gate import Gate, prompt_key


def test_the_threshold_is_inclusive_and_zero_never_opens():
    gate = Gate(0.5)
    assert gate.is_open(0.5)
    assert not gate.is_open(0.499)
    assert not Gate(0.0).is_open(0.0)


def test_prompts_that_name_no_subject_have_a_threshold_of_their_own():
    gate = Gate(0.1, weight_threshold=0.6)
    assert gate.is_open(0.3, named=True)
    assert not gate.is_open(0.3, named=False)
    assert not Gate(0.5).is_open(0.3, named=False)


@pytest.mark.parametrize("logit", [-800.0, -1.0, 0.0, 1.0, 800.0])
def test_alpha_is_the_sigmoid_without_overflow(logit):
    expected = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
    assert Gate(0.5).remember("k", logit) == pytest.approx(expected, abs=1e-12)


def test_nan_counts_as_no_weight():
    assert Gate(0.5).remember("k", math.nan) == 0.0


def test_decisions_are_remembered_per_prompt():
    gate = Gate(0.5)
    alpha = gate.remember(prompt_key([1, 2]), 2.0)
    assert gate.recall(prompt_key((1, 2))) == alpha
    assert gate.recall(prompt_key([2, 1])) is None


def test_the_log_holds_no_prompt(tmp_path):
    log = tmp_path / "decisions.jsonl"
    Gate(0.5, log).record(prompt_key([72, 105]), 0.9, True, "subject")
    assert json.loads(log.read_text()) == {
        "prompt": prompt_key([72, 105]),
        "alpha": 0.9,
        "gated": True,
        "scope": "subject",
    }


def test_a_log_that_cannot_be_written_is_dropped_and_said(tmp_path, caplog):
    gate = Gate(0.5, tmp_path / "missing" / "decisions.jsonl")
    gate.record("k", 0.9, True)
    gate.record("k", 0.9, True)
    assert len([r for r in caplog.records if "decisions_log" in r.message]) == 1
