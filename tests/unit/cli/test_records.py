"""``onceedit records``: what a data set asks stays out of what is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onceedit_vllm.cli.main import app
from onceedit_vllm.editing.records import load_edits
from tests.unit.evaluation.test_datasets import RAW


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "cache"))


def test_edits_are_written_without_their_questions(tmp_path: Path) -> None:
    data, out = tmp_path / "data.json", tmp_path / "edits.jsonl"
    data.write_text(json.dumps([RAW["qaedit"], {**RAW["qaedit"], "id": 4}]), encoding="utf-8")
    given = ["records", "--data", str(data), "--dataset", "qaedit", "--out", str(out)]
    assert CliRunner().invoke(app, given).exit_code == 0
    assert [edit.id for edit in load_edits(out)] == ["NQ-3", "NQ-4"]
    assert CliRunner().invoke(app, [*given, "--limit", "1"]).exit_code == 0
    (edit,) = load_edits(out)
    assert (edit.prompt, edit.target, edit.subject) == ("Velcorp is in", "Oslo", "Velcorp")
    assert (edit.rephrases, edit.locality) == ((), ())
    assert CliRunner().invoke(app, [*given, "--limit", "0"]).exit_code == 2
