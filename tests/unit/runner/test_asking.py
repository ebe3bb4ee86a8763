"""The log of decisions, as a run that was stopped leaves it."""

from __future__ import annotations

from pathlib import Path

from onceedit_vllm.runner.asking import Decision, drop_cut_line, read_decisions

LINE = '{"prompt": "a", "alpha": 0.5, "gated": true, "scope": "subject"}\n'


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    log.write_text(LINE + LINE[:12], encoding="utf-8")
    assert read_decisions(log) == {"a": Decision(0.5, True, "subject")}
    drop_cut_line(log)
    assert log.read_text(encoding="utf-8") == LINE
    log.write_text(LINE[:12], encoding="utf-8")
    drop_cut_line(log)
    assert log.read_text(encoding="utf-8") == ""


def test_a_log_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    drop_cut_line(tmp_path / "absent")
    assert read_decisions(tmp_path / "absent") == {}
    assert not (tmp_path / "absent").exists()


def test_the_last_decision_on_a_prompt_counts(tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    log.write_text(LINE + LINE.replace("0.5", "null").replace("true", "false"), encoding="utf-8")
    assert read_decisions(log) == {"a": Decision(None, False, "subject")}
