"""``onceedit wordings``, and ``onceedit edit`` with wordings: what is asked, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from onceedit_vllm.cli.main import app
from onceedit_vllm.editing import edit as edit_module
from onceedit_vllm.wordings.file import read_wordings
from tests.unit.wordings.test_server import Echoing
from tests.unit.wordings.writers import CAPITAL, Scripted


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(CAPITAL.model_dump(exclude_defaults=True)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def server() -> Iterator[Echoing]:
    with Echoing() as server:
        server.answer = Scripted().answer
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the editing stage was given; the training itself is stood in for."""
    seen: dict[str, Any] = {}

    def edit(plugin: str, edits: Path, out: Path, **options: Any) -> Any:
        seen.update(options)
        manifest = SimpleNamespace(threshold=0.5, threshold_reason="because")
        return SimpleNamespace(
            root=out, edits=(1,), manifest=manifest, report=SimpleNamespace(num_learnt=1, edits=())
        )

    monkeypatch.setattr(edit_module, "edit", edit)
    return seen


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_server_writes_them_and_the_yield_is_shown(server: Echoing, facts: Path, tmp_path: Path) -> None:
    out = tmp_path / "wordings.jsonl"
    result = run("wordings", facts, "--llm", server.url, "--out", out, "--model", "mine", "--api-key", "k")
    assert result.exit_code == 0, result.output
    (line,) = read_wordings(out)
    assert (line.model, len(line.asking)) == ("mine", 5)
    assert line.others == ("How large is Norland?", "From Norland one can see")
    assert {key for _, key, _ in server.asked} == {"Bearer k"}
    assert "asking: says the target" in result.stdout
    asked = len(server.asked)
    assert run("wordings", facts, "--llm", server.url, "--out", out).exit_code == 0
    assert len(server.asked) == asked  # nothing is left to write


def test_edit_takes_a_file(facts: Path, tmp_path: Path, trained: dict[str, Any]) -> None:
    given: list[str | Path] = ["edit", "--plugin", "p", "--edits", facts, "--out", tmp_path / "pack"]
    assert run(*given, "--wordings", tmp_path / "w").exit_code == 0
    assert trained["wordings"] == tmp_path / "w"
    assert run(*given).exit_code == 0
    assert trained["wordings"] == ()


def test_edit_has_them_written_first(
    server: Echoing, facts: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    given: list[str | Path] = ["edit", "--plugin", "p", "--edits", facts, "--out", tmp_path / "pack"]
    result = run(*given, "--wordings-llm", server.url)
    assert result.exit_code == 0, result.output
    assert trained["wordings"] == tmp_path / "pack.wordings.jsonl"
    assert len(read_wordings(trained["wordings"])) == 1
    kept = tmp_path / "kept.jsonl"
    assert run(*given, "--wordings-llm", server.url, "--wordings-out", kept).exit_code == 0
    assert trained["wordings"] == kept


def test_what_does_not_go_together_is_refused_before_anybody_is_asked(
    server: Echoing, facts: Path, tmp_path: Path, trained: dict[str, Any]
) -> None:
    out = tmp_path / "pack"
    given: list[str | Path] = ["edit", "--plugin", "p", "--edits", facts, "--out", out]
    both = run(*given, "--wordings", "w", "--wordings-llm", server.url)
    assert (both.exit_code, "give one of the two" in both.stderr) == (2, True)
    alone = run(*given, "--wordings-out", "w")
    assert (alone.exit_code, "--wordings-llm" in alone.stderr) == (2, True)
    folder = run("wordings", facts, "--llm", server.url, "--out", tmp_path)
    assert (folder.exit_code, "is a folder" in folder.stderr) == (2, True)
    (out / "something").mkdir(parents=True)
    taken = run(*given, "--wordings-llm", server.url)
    assert (taken.exit_code, "exists" in taken.stderr) == (2, True)
    unknown = run("wordings", facts, "--llm", "no-such-model", "--out", tmp_path / "w")
    assert (unknown.exit_code, "no-such-model" in unknown.stderr) == (2, True)
    assert (server.asked, trained) == ([], {})
