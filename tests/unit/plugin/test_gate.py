from __future__ import annotations

import math

from onceedit_vllm.plugin.gate import Gate, prompt_key


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


def test_nan_counts_as_no_weight():
    gate = Gate(0.5)
    gate.remember("k", math.nan)
    assert gate.recall("k") == 0.0


def test_decisions_are_remembered_per_prompt():
    gate = Gate(0.5)
    gate.remember(prompt_key([1, 2]), 0.25)
    assert gate.recall(prompt_key((1, 2))) == 0.25
    assert gate.recall(prompt_key([2, 1])) is None


def test_the_prompt_asked_for_longest_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr("onceedit_vllm.plugin.gate._MEMORY", 2)
    gate = Gate(0.5)
    for key in ("a", "b"):
        gate.remember(key, 0.5)
    gate.recall("a")
    gate.remember("c", 0.5)
    assert [gate.recall(key) is None for key in ("a", "b", "c")] == [False, True, False]
