from __future__ import annotations

import json
import math

from onceedit_vllm.runner.decisions import flush_decisions
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
    monkeypatch.setattr("onceedit_vllm.runner.gate._MEMORY", 2)
    gate = Gate(0.5)
    for key in ("a", "b"):
        gate.remember(key, 0.5)
    gate.recall("a")
    gate.remember("c", 0.5)
    assert [gate.recall(key) is None for key in ("a", "b", "c")] == [False, True, False]


def test_decisions_go_to_the_log_where_there_is_one(tmp_path):
    log = tmp_path / "decisions.jsonl"
    Gate(0.5).record(prompt_key([72, 105]), 0.9, True, "subject")
    gate = Gate(0.5, log)
    gate.record(prompt_key([72, 105]), 0.9, True, "subject")
    flush_decisions()
    assert json.loads(log.read_text()) == {
        "prompt": prompt_key([72, 105]),
        "alpha": 0.9,
        "gated": True,
        "scope": "subject",
    }


def test_only_a_gate_with_a_log_that_can_be_written_is_logging(tmp_path):
    gate = Gate(0.5, tmp_path / "missing" / "decisions.jsonl")
    assert (gate.is_logging, Gate(0.5).is_logging) == (True, False)
    gate.record("k", None, False, "out")
    flush_decisions()
    assert not gate.is_logging
