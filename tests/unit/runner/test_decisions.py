from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.runner.decisions import DecisionsLog, flush_decisions

NUM_LINES = 300


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lines_wait_and_are_written_together(tmp_path):
    path = tmp_path / "decisions.jsonl"
    log = DecisionsLog(path, seconds=3600)
    log.record("a", 0.9, True, "subject")
    log.record("b", None, False, "out")
    assert not path.exists()
    log.flush()
    log.flush()
    assert read(path) == [
        {"prompt": "a", "alpha": 0.9, "gated": True, "scope": "subject"},
        {"prompt": "b", "alpha": None, "gated": False, "scope": "out"},
    ]


def test_a_line_is_written_without_waiting_for_the_next(tmp_path):
    path = tmp_path / "decisions.jsonl"
    log = DecisionsLog(path, seconds=0.01)
    for number in (1, 2):
        log.record("k", 0.9, True, "weight")
        for _ in range(600):
            if path.exists() and len(read(path)) == number:
                break
            time.sleep(0.05)
        assert len(read(path)) == number


def test_an_engine_in_this_process_leaves_nothing_waiting(tmp_path):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    logs = [DecisionsLog(path) for path in paths]
    for log in logs:
        log.record("k", 0.5, True, "weight")
    flush_decisions()
    assert [len(read(path)) for path in paths] == [1, 1]


def decide(path: Path, name: str) -> None:
    log = DecisionsLog(path)
    for number in range(NUM_LINES):
        log.record(f"{name}{number}", 0.5, True, "weight")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_nothing_is_lost_when_engine_processes_end(tmp_path, method):
    """As vLLM starts them: several at a time on one file, and without `atexit` where they are forked."""
    path = tmp_path / "decisions.jsonl"
    context = multiprocessing.get_context(method)
    engines = [context.Process(target=decide, args=(path, name)) for name in ("x", "y")]
    for engine in engines:
        engine.start()
    for engine in engines:
        engine.join(60)
        assert engine.exitcode == 0
    names = sorted(line["prompt"] for line in read(path))
    assert names == sorted(f"{name}{number}" for name in "xy" for number in range(NUM_LINES))


def test_a_log_that_cannot_be_written_is_dropped_and_said(tmp_path, caplog):
    log = DecisionsLog(tmp_path / "missing" / "decisions.jsonl")
    for _ in range(2):
        log.record("k", 0.9, True, "weight")
        log.flush()
    assert len([r for r in caplog.records if "decisions_log" in r.message]) == 1
