"""What libraries print during a command: in a log that a failure names, or on the screen with --verbose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onceedit_vllm.cli.quiet import NUM_LOGS, library_log

#: The command itself, with a stand-in for the work that prints as libraries do, and fails.
COMMAND = """
import os, sys
import onceedit_vllm.models as room
from onceedit_vllm.cli.main import app
from onceedit_vllm.errors import ModelError

def fetch_model(*_):
    print("noise of stdout")
    os.write(1, b"noise of descriptor 1\\n")
    os.write(2, b"noise of descriptor 2\\n")
    raise {error}

room.fetch_model = fetch_model
app(sys.argv[1:])
"""
NOISE = ("noise of stdout", "noise of descriptor 1", "noise of descriptor 2")


def get(
    cache: Path, *before: str, error: str = "ModelError('toy: damaged')", **variables: str
) -> subprocess.CompletedProcess[str]:
    """`onceedit models get toy`, with options before it."""
    program = [sys.executable, "-c", COMMAND.format(error=error), *before, "models", "get", "toy"]
    environment = {**os.environ, "ONCEEDIT_CACHE": str(cache), "COLUMNS": "200", **variables}
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


def test_noise_is_in_the_log_that_the_failure_names(tmp_path: Path) -> None:
    done = get(tmp_path)
    (log,) = (tmp_path / "logs").iterdir()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "Error: toy: damaged",
        f"What the libraries printed is in {log} (`onceedit --verbose ...` shows it instead).",
    ]
    assert log.name.startswith("models-")
    assert sorted(log.read_text().splitlines()) == sorted(NOISE)


def test_what_was_not_expected_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    done = get(tmp_path, error="ZeroDivisionError('boom')")
    (log,) = (tmp_path / "logs").iterdir()
    assert "Traceback" not in done.stderr
    assert "ZeroDivisionError: boom" in done.stderr
    assert str(log) in done.stderr
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("before", "variables"),
    [(["--verbose"], {}), (["--debug"], {}), ([], {"ONCEEDIT_VERBOSE": "1"}), ([], {"ONCEEDIT_DEBUG": "1"})],
)
def test_on_wish_noise_is_on_the_screen(tmp_path: Path, before: list[str], variables: dict[str, str]) -> None:
    done = get(tmp_path, *before, **variables)
    assert done.stdout == ""
    assert all(noise in done.stderr for noise in NOISE)
    assert "logs" not in done.stderr
    assert not (tmp_path / "logs").exists()


def test_without_a_place_for_the_log_noise_is_on_the_screen(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = get(tmp_path / "file")
    assert done.stdout == ""
    assert all(noise in done.stderr for noise in NOISE)
    assert "Error: toy: damaged" in done.stderr


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path))
    return tmp_path / "logs"


def test_a_log_without_words_is_not_kept(logs: Path) -> None:
    with library_log("demo") as log:
        assert log is not None
        assert log.parent == logs
    assert list(logs.iterdir()) == []


def test_a_log_that_others_removed_meanwhile_is_no_error(logs: Path) -> None:
    with library_log("demo") as log:
        assert log is not None
        log.unlink()
        print("noise")
    assert list(logs.iterdir()) == []


def test_the_newest_logs_are_kept(logs: Path) -> None:
    logs.mkdir()
    for age in range(NUM_LOGS + 5):
        old = logs / f"edit-{age:02}.log"
        old.write_text("words")
        os.utime(old, (1e9 - age, 1e9 - age))
    with library_log("demo") as log:
        print("noise")
    assert log is not None
    kept = {path.name for path in logs.iterdir()}
    assert kept == {log.name, *(f"edit-{age:02}.log" for age in range(NUM_LOGS - 1))}
