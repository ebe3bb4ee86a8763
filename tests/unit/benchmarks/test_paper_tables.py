"""The paper's tables: what was measured stands in them as it was, with intervals and the paper's beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import paper_markdown
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
    return "\n".join(paper_markdown.tables(paper_markdown.read_results(tmp_path)))


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
    assert "paper:" not in chats.split("### Table 6")[0]


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
    for file in paper_markdown.RESULTS.glob("*.json"):
        found = json.loads(file.read_text(encoding="utf-8"))
        assert not {"records", "questions"} & set(found)
        assert set(paper_tables.KEPT) <= set(found)


def test_another_scope_and_fewer_questions_say_so(tmp_path: Path) -> None:
    one = result("gemma", "natural-stop", 0.9, None) | {
        "ask": 50, "settings": {"scope": "subject"}, "pack": {"base_model": "gemma-3-270m"},
    }  # fmt: skip
    said = paper_markdown.title(one)
    assert said == "gemma with the pack, of the plug-in gemma-3-270m, scope=subject, asked of 50 edits"
    assert not paper_markdown.is_usual(one)
    usual = paper_tables.Run("zsre", 100, "smollm2-135m", "gemma", "natural-stop", "subject+weight", 100)
    assert usual.name == "zsre-100-gemma-natural-stop"
    other = usual._replace(plugin="gemma", llm="smol", scope="subject", ask=50)
    assert other.name == "zsre-100-by-gemma-smol-natural-stop-subject-first-50"


def test_the_papers_way_stands_in_table_2_only() -> None:
    one = result("gemma", "natural-stop", 0.98, None)
    one["baselines"]["deepen"] = one["summary"] | {"locality": share(0.125)}
    text = "\n".join(paper_markdown.tables([one]))
    accuracy, ablation = text.split("### Table 2: zsre, gemma with the pack")
    assert "gemma: deepen" not in accuracy
    assert "| every prompt fused, DeePEn's maps | 0.980" in ablation
    assert "0.125 [0.125, 0.125] of 100 |" in ablation.split("**here**")[0]
    assert "| paper: DeePEn, Llama2-7B | 0.88 | 0.81 | 0.02 |" in ablation


def test_the_mean_of_what_was_not_asked_is_none() -> None:
    text = "\n".join(paper_markdown.tables([result("gemma", "natural-stop", 0.98, None)]))
    _, models = text.split("### Table 6: zsre, natural stop")
    assert "| **gemma** | 100 | 0.98 | 0.50 | - | - |" in models
    assert "| paper: Llama3-8B | 200 | 0.91 | 0.90 | 0.97 | 0.93 |" in models


def test_lambdas_stand_in_their_order() -> None:
    stratum = {"edit": {"right": 39, "n": 40}, "rephrase": {"right": 0, "n": 0}}
    trainings = [
        {"dataset": "zsre", "edits": 40, "settings": {"weight_lambda": weight}, "strata": stratum}
        for weight in (0.8, 0.0)
    ]
    lines = list(paper_markdown.lambda_table({"trainings": trainings}, {"zsre": {"0.80": [0.99, 0.98, 1.0]}}))
    assert lines[-2:] == ["| 0.00 | 39 of 40 |  |", "| 0.80 | 39 of 40 | 0.99, 0.98, 1.00 |"]


def test_costs_are_shown_with_the_papers() -> None:
    one = {
        "plugin": "smol", "llm": "gemma", "kind": "eq16", "llm_vocab_size": 300, "plugin_vocab_size": 200,
        "num_anchors": 100, "tflops": 1.25, "llm_tokens": 900.4, "seconds": 3.21,
        "bytes_held": 5e6, "bytes_dense": 2e9,
    }  # fmt: skip
    lines = list(paper_markdown.cost_table({"attachments": [one]}, {"GPT-J-6B": [50400, 17830, 9.739, 886]}))
    assert lines[-2] == "| smol with gemma, eq16 | 300 | 200 | 100 | 1.25 | 900 | 3.2 | 5 | 2.0 |"
    assert lines[-1] == "| paper: GPT-J-6B | 50400 | 32001 | 17830 | 9.739 | 886 | - | - | - |"


def test_attach_wants_its_pack(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["paper_tables.py", "attach"])
    with pytest.raises(SystemExit):
        paper_tables.main()
    assert "--pack" in capsys.readouterr().err


def test_measure_wants_its_folders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["paper_tables.py", "measure"])
    with pytest.raises(SystemExit):
        paper_tables.main()
    assert "--data" in capsys.readouterr().err
