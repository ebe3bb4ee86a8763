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


def test_the_prompt_asked_for_longest_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr("onceedit_vllm.runner.gate._MEMORY", 2)
    gate = Gate(0.5)
    for key in ("a", "b"):
        gate.remember(key, 2.0)
    gate.recall("a")
    gate.remember("c", 2.0)
    assert [gate.recall(key) is None for key in ("a", "b", "c")] == [False, True, False]


def test_decisions_go_to_the_log_where_there_is_one(tmp_path):
    log = tmp_path / "decisions.jsonl"
    Gate(0.5).record(prompt_key([72, 105]), 0.9, True)
    gate = Gate(0.5, log)
    gate.record(prompt_key([72, 105]), 0.9, True)
    gate._log.flush()
    assert json.loads(log.read_text()) == {"prompt": prompt_key([72, 105]), "alpha": 0.9, "gated": True}
