"""The paper's tables: what was measured stands in them as it was, with intervals and the paper's beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import paper_tables
import pytest


def share(value: float | None, n: int = 100) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value, "n": n}


def result(
    llm: str, protocol: str, reliability: float, seconds: float | None, **more: dict[str, Any]
) -> dict[str, Any]:
    figures = {
        "reliability": share(reliability),
        "generality": share(0.5, 40),
        "locality": share(None),
        **more,
    }
    return {
        "dataset": "zsre", "protocol": protocol, "llm": llm, "edits": 100, "summary": figures,
        "baselines": {"context": figures | {"reliability": share(0.25)}}, "editing": {"seconds": 900.0},
        "finetuning": None if seconds is None else {"seconds": seconds},
    }  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> str:
    for at, one in enumerate(
        [
            result("gemma", "natural-stop", 0.98, 400.0),
            result("smol", "natural-stop", 0.97, 300.0),
            result("smol", "teacher-forced", 0.99, None),
            result("smol", "chat", 0.96, None, same_subject_locality=share(0.75, 8)),
        ]
    ):
        (tmp_path / f"{at}.json").write_text(json.dumps(one), encoding="utf-8")
    return "\n".join(paper_tables.tables(paper_tables.read_results(tmp_path)))


def test_each_protocol_has_its_table(text: str) -> None:
    forced, rest = text.split("### Table 7: zsre, natural-stop")
    natural, _ = rest.split("### Chat")
    assert "### Table 1: zsre, teacher-forced" in forced
    assert (
        "| **gemma with the pack** | 100 | 0.980 [0.980, 0.980] of 100 | 0.500 [0.500, 0.500] of 40 | - |"
        in natural
    )
    assert "gemma: context | 100 | 0.250" in natural
    assert "gemma" not in forced


def test_what_the_paper_has_no_table_of_has_one_too(text: str) -> None:
    _, chats = text.split("### Chat: zsre, chat")
    assert "| | edits | reliability | generality | locality | same subject locality |" in " ".join(
        chats.split("\n")[2].split()
    )
    assert "| **smol with the pack** | 100 | 0.960 [0.960, 0.960] of 100 |" in chats
    assert "0.750 [0.750, 0.750] of 8 |" in chats
    assert "paper:" not in chats.split("### Table 4")[0]


def test_the_papers_numbers_stand_beside_those_of_the_same_protocol(text: str) -> None:
    forced, natural = text.split("### Table 7: zsre, natural-stop")
    assert "| paper: OnceEdit, Llama2-7B | 1000 | 0.99 | 0.92 | 0.99 |" in forced
    assert "| paper: OnceEdit, Llama2-7B | 1000 | 0.99 | 0.89 | 0.99 |" in natural
    assert "WISE, Llama2-7B | 1000 | 0.58" in natural


def test_time_is_once_against_one_by_one(text: str) -> None:
    _, times = text.split("### Table 4: zsre, seconds")
    assert "| edited once, for all LLMs | 900 |" in times
    assert "(gemma 400, smol 300) | 700 |" in times


def test_the_committed_results_hold_no_text_of_the_sets() -> None:
    for file in paper_tables.RESULTS.glob("*.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert not {"records", "questions"} & set(found)
        assert set(paper_tables.KEPT) <= set(found)


def test_measure_wants_its_folders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["paper_tables.py", "measure"])
    with pytest.raises(SystemExit):
        paper_tables.main()
    assert "--data" in capsys.readouterr().err
