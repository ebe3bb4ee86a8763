"""``onceedit eval``: what it passes on, prints and refuses. The evaluation itself is stood in for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from onceedit_vllm.cli.main import app
from onceedit_vllm.config import EvaluationConfig
from onceedit_vllm.evaluation import evaluate as evaluate_module
from tests.unit.evaluation.cases import question, report, result

GIVEN = ["eval", "--llm", "L", "--pack", "P", "--data", "D", "--dataset", "zsre"]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("VLLM_LOGGING_LEVEL", "TRANSFORMERS_VERBOSITY", "TOKENIZERS_PARALLELISM", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "set, so that the command leaves it")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def evaluate(llm: str, pack: Path, data: Path, out: Path, config: EvaluationConfig, **more: Any) -> Any:
        seen.update(more, llm=llm, pack=pack, data=data, out=out, config=config)
        return report(result("a", question(), question("rephrase")), baselines=config.baselines)

    inspect.signature(evaluate_module.evaluate).bind("l", "p", "d", "o", None, progress=True)
    monkeypatch.setattr(evaluate_module, "evaluate", evaluate)
    return seen


def run(*options: str | Path) -> Result:
    return CliRunner().invoke(app, [*GIVEN, *map(str, options)])


def test_everything_is_passed_on(seen: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    done = run("--json", out)
    assert done.exit_code == 0, done.output
    assert seen["config"] == EvaluationConfig(dataset="zsre")
    assert (seen["llm"], seen["pack"], seen["data"], seen["out"]) == ("L", Path("P"), Path("D"), out)
    assert seen["progress"] is True
    options = ["--protocol", "chat", "--limit", "3", "--scope", "subject", "--threshold", "0.2"]
    options += ["--max-tokens", "9", "--batch-size", "5", "--baseline", "llm", "--baseline", "lookup"]
    assert run("--json", out, *options, "--baseline", "llm").exit_code == 0
    assert seen["config"] == EvaluationConfig(
        dataset="zsre", protocol="chat", limit=3, scope="subject", threshold=0.2, max_tokens=9, batch_size=5,
        baselines=("llm", "lookup"),
    )  # fmt: skip


def test_the_summary_is_printed_and_the_page_written(seen: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run("--json", tmp_path / "report.json", "--html", page, "--baseline", "plugin")
    assert done.exit_code == 0, done.output
    for cell in ("generality", "1.000 to 1.000", "same subject locality", "plugin"):
        assert cell in done.stdout
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--json", "-"],
        ["--json", "absent/report.json"],
        ["--json", "report.json", "--html", "absent/page.html"],
        ["--json", "report.json", "--limit", "0"],
        ["--json", "report.json", "--threshold", "2"],
        ["--json", "report.json", "--baseline", "nobody"],
        ["--json", "report.json", "--protocol", "guess"],
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(
    seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*options).exit_code == 2
    assert not seen
