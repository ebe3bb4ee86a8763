"""``onceedit eval`` from the shell on toys, with real engines behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.evaluation.finetuning import EPOCHS
from tests.e2e.conftest import ASIDE, DOUBTS, EDITS, OUTSIDE, SUBJECTS
from tests.e2e.engine import runner_environment

pytestmark = pytest.mark.e2e

BASELINES = ("llm", "plugin", "lookup", "context", "finetuned", "deepen")


@pytest.fixture(scope="module")
def data(work: Path) -> Path:
    """The three edits, and one that the pack has not."""
    edits = zip(SUBJECTS, EDITS.items(), OUTSIDE[:3], strict=True)
    lines: list[dict[str, Any]] = [
        {"id": f"e{at}", "prompt": prompt, "target": target, "subject": subject, "locality": [outside]}
        for at, (subject, (prompt, target), outside) in enumerate(edits)
    ]
    lines[0]["same_subject"] = [DOUBTS[-1], ASIDE[0]]
    # Training makes this wording itself.
    lines[0]["rephrases"] = ["What is the capital of Norland?"]
    lines.append({"id": "other", "prompt": "The capital of Sudland is", "target": "Velm"})
    file = work / "questions.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def out(work: Path) -> Path:
    folder = work / "evaluation"
    folder.mkdir()
    return folder


def run(work: Path, llm_dir: Path, pack_dir: Path, data: Path, *options: str | Path) -> Any:
    return subprocess.run(
        [
            str(Path(sys.executable).parent / "onceedit"), "eval", "--llm", str(llm_dir),
            "--pack", str(pack_dir), "--data", str(data), "--dataset", "jsonl", *map(str, options),
        ],
        env={**runner_environment("v1"), "ONCEEDIT_CACHE": str(work / "eval-cache")},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def natural(work: Path, llm_dir: Path, pack_dir: Path, data: Path, out: Path) -> Any:
    baselines = [part for name in BASELINES for part in ("--baseline", name)]
    done = run(
        work, llm_dir, pack_dir, data, "--json", out / "natural.json", "--html", out / "natural.html",
        "--batch-size", "4", *baselines,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def load(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_report(natural: Any, out: Path) -> None:
    report = load(out / "natural.json")
    summary = report["summary"]
    assert summary["reliability"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    assert summary["locality"]["value"] == 1.0
    assert summary["locality"]["n"] == 3
    # Training makes one of the two itself.
    assert summary["same_subject_locality"]["n"] == 1
    assert (report["strata"]["same_subject"]["asked"], report["strata"]["same_subject"]["contaminated"]) == (
        2,
        1,
    )
    assert summary["generality"] == {"value": None, "low": None, "high": None, "n": 0}
    assert summary["plugin_alone_reliability"]["value"] == 1.0
    assert summary["transport_loss"]["value"] == 0.0
    assert report["contaminated"] == ["e0"]
    assert report["left_out"] == 1
    assert [record["id"] for record in report["records"]] == ["e0", "e1", "e2"]
    asked = report["records"][0]["questions"]
    assert [question["stratum"] for question in asked][:3] == ["edit", "rephrase", "locality"]
    assert (asked[0]["said"].strip(), asked[0]["gated"], asked[0]["in_scope"]) == ("Tarsk", True, True)
    assert (asked[2]["alpha"], asked[2]["in_scope"], asked[2]["unchanged"]) == (None, False, True)
    assert str(out) not in (out / "natural.json").read_text(encoding="utf-8")


def test_others_stand_beside(natural: Any, out: Path) -> None:
    report = load(out / "natural.json")
    baselines = report["baselines"]
    assert list(baselines) == list(BASELINES)
    assert baselines["llm"]["reliability"]["value"] == 0.0
    assert baselines["llm"]["locality"]["value"] == 1.0
    assert baselines["plugin"]["reliability"]["value"] == 1.0
    # It is told for whatever is asked about the subject.
    assert baselines["lookup"]["reliability"]["value"] == 1.0
    assert baselines["lookup"]["same_subject_locality"]["value"] == 0.0
    assert baselines["context"]["reliability"]["n"] == 3
    # Toys learn too slowly for its settings to be right; it was trained, served and asked.
    tuning = report["finetuning"]
    assert (tuning["edits"], tuning["epochs"]) == (3, EPOCHS)
    assert baselines["finetuned"]["locality"]["value"] < 1.0
    # The paper's way, over the map that its public code has: every prompt is fused.
    assert baselines["deepen"]["reliability"]["value"] > 0.0
    assert baselines["deepen"]["locality"]["value"] == 0.0


def test_the_table_and_the_page(natural: Any, out: Path) -> None:
    assert "same subject locality" in natural.stdout
    assert "lookup" in natural.stdout
    page = (out / "natural.html").read_text(encoding="utf-8")
    # Histograms of edit, locality and same subject (the one rephrase is known to training), and the curve.
    assert page.count("<svg") == 4
    assert "The worst 20 misses" in page


def test_a_stopped_run_goes_on_where_it_stood(
    natural: Any, work: Path, llm_dir: Path, pack_dir: Path, data: Path, out: Path
) -> None:
    whole = load(out / "natural.json")
    answers, decisions = out / "cut.answers.jsonl", out / "cut.decisions.jsonl"
    kept = (out / "natural.answers.jsonl").read_bytes().splitlines(keepends=True)
    # Stopped in the middle of a line, and before some of what it had asked was decided on record.
    answers.write_bytes(b"".join(kept[:9]) + kept[9][:20])
    logged = (out / "natural.decisions.jsonl").read_bytes().splitlines(keepends=True)
    decisions.write_bytes(b"".join(logged[:2]) + logged[2][:10])
    done = run(
        work, llm_dir, pack_dir, data, "--json", out / "cut.json", "--batch-size", "4"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert answers.read_bytes().startswith(b"".join(kept[:9]))
    assert load(out / "cut.json")["summary"] == whole["summary"]
    # All is known now: no engine starts, and other settings are not mixed in.
    before = answers.read_bytes(), decisions.read_bytes()
    again = run(work, llm_dir, pack_dir, data, "--json", out / "cut.json", "--batch-size", "4")
    assert again.returncode == 0, again.stderr[-3000:]
    assert (answers.read_bytes(), decisions.read_bytes()) == before
    assert load(out / "cut.json")["summary"] == whole["summary"]
    other = run(work, llm_dir, pack_dir, data, "--json", out / "cut.json", "--threshold", "0.9")
    assert other.returncode == 2
    assert "threshold: None there, 0.9 now" in other.stderr


def test_teacher_forced(work: Path, llm_dir: Path, pack_dir: Path, data: Path, out: Path) -> None:
    done = run(
        work, llm_dir, pack_dir, data, "--json", out / "forced.json", "--protocol", "teacher-forced",
        "--baseline", "llm",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = load(out / "forced.json")
    assert report["summary"]["reliability"]["value"] == 1.0
    assert report["summary"]["plugin_alone_reliability"]["value"] == 1.0
    assert report["baselines"]["llm"]["reliability"]["value"] < 1.0
    assert report["summary"]["locality"]["value"] == 1.0


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--limit", "0"], 2, "--limit 0"),
        (["--baseline", "nobody"], 2, "--baseline"),
        (["--html", "/nowhere/at/all.html"], 2, "--html /nowhere/at/all.html"),
        (["--dataset", "zsre"], 2, "cannot be read as zsre"),
    ],
)
def test_what_cannot_be_is_said_before_an_engine_starts(
    work: Path, llm_dir: Path, pack_dir: Path, data: Path, out: Path, options: list[str], code: int, said: str
) -> None:
    done = run(work, llm_dir, pack_dir, data, "--json", out / "refused.json", *options)
    assert done.returncode == code, done.stderr[-2000:]
    assert said in done.stderr.replace("\n", " ")
    assert not (out / "refused.answers.jsonl").exists()


def test_an_llm_without_a_chat_template_cannot_be_asked_in_chats(
    work: Path, pack_dir: Path, data: Path, out: Path
) -> None:
    # The pack's own base: it has no template.
    done = run(work, work / "plugin", pack_dir, data, "--json", out / "refused.json", "--protocol", "chat")
    assert done.returncode == 1, done.stderr[-2000:]
    assert "has no chat template" in done.stderr.replace("\n", " ")
    assert not (out / "refused.answers.jsonl").exists()


def test_in_chats_the_edits_are_known_and_the_rest_is_untouched(
    work: Path, llm_dir: Path, pack_dir: Path, data: Path, out: Path
) -> None:
    done = run(work, llm_dir, pack_dir, data, "--json", out / "chat.json", "--protocol", "chat")
    assert done.returncode == 0, done.stderr[-3000:]
    summary = load(out / "chat.json")["summary"]
    assert (summary["reliability"]["value"], summary["locality"]["value"]) == (1.0, 1.0)


def test_a_pack_of_other_edits_is_refused(
    work: Path, llm_dir: Path, pack_dir: Path, out: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(
        '{"id": "x", "prompt": "The capital of Sudland is", "target": "Velm"}\n', encoding="utf-8"
    )
    done = run(work, llm_dir, pack_dir, other, "--json", out / "refused.json")
    assert done.returncode == 2
    assert "has an edit of none of its 1 records" in done.stderr.replace("\n", " ")


def test_unrelated_prompts_are_the_llms_own(
    work: Path, llm_dir: Path, pack_dir: Path, tmp_path: Path
) -> None:
    """The benchmark's whole path, on toys."""
    lines = [{"prompt": f"The colour of {name} is", "subject": name} for name in ("Zeb", "Yor", "Quill")]
    (tmp_path / "counterfact_train_2000.json").write_text(json.dumps(lines), encoding="utf-8")
    script = Path(__file__).parents[2] / "benchmarks" / "unrelated.py"
    command = (
        sys.executable, script, "--data", tmp_path, "--pack", pack_dir, "--llm", llm_dir,
        "--work", tmp_path / "asked", "--out", tmp_path / "result.json",
    )  # fmt: skip
    environment = {**runner_environment("v1"), "ONCEEDIT_CACHE": str(work / "eval-cache")}
    done = subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "changed: wanted 0, reached 0" in done.stdout
    found = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert [found[what] for what in ("prompts", "in_scope", "gated", "changed")] == [3, 0, 0, 0]
