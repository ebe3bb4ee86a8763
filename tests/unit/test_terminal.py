"""Our words reach the terminal, others' do not, however they print: on a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from onceedit_vllm import terminal

NOISY = """
import logging, os, subprocess, sys
from pathlib import Path
from rich.progress import BarColumn, TextColumn
from onceedit_vllm.terminal import error_console, kept_terminal, progress_bar

logging.basicConfig(stream=sys.stderr, format="noise of %(message)s")
log = open(sys.argv[1], "a", buffering=1) if len(sys.argv) > 1 else None
with kept_terminal(log) as output:
    with progress_bar(TextColumn("our bar"), BarColumn(), shown=True) as bar:
        bar.add_task("", total=1)
        print("noise of stdout")
        print("noise of stderr", file=sys.stderr)
        logging.warning("logging")
        os.write(1, b"noise of descriptor 1\\n")
        os.write(2, b"noise of descriptor 2\\n")
        child = "import os; os.write(1, b'noise of a child'); os.write(2, b'noise of its errors')"
        subprocess.run([sys.executable, "-c", child])
    error_console().print("our message")
    output.write("our answer")
print("after")
print("after, too", file=sys.stderr)
"""
NOISE = ("stdout", "stderr", "logging", "descriptor 1", "descriptor 2", "a child", "its errors")


def on_a_terminal(*arguments: str) -> tuple[str, str]:
    """Run NOISY with standard error on a pseudo-terminal; (standard output, what the screen shows)."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", NOISY, *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    ) as child:
        os.close(theirs)
        screen = b""
        while block := _read(ours):
            screen += block
        assert child.stdout is not None
        output = child.stdout.read()
    os.close(ours)
    assert child.returncode == 0, screen
    return output, screen.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_others_print_into_the_log_and_we_on_the_screen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    output, screen = on_a_terminal(str(log))
    assert output == "our answerafter\n"
    assert "our bar" in screen
    assert "our message" in screen
    assert "after, too" in screen
    assert "noise" not in screen
    assert all(f"noise of {source}" in log.read_text() for source in NOISE)


def test_without_a_log_others_print_on_the_screen_but_not_into_the_answer() -> None:
    output, screen = on_a_terminal()
    assert output == "our answerafter\n"
    assert all(text in screen for text in ("our bar", "our message", "after, too"))
    assert all(f"noise of {source}" in screen for source in NOISE)


def test_streams_come_back_after_an_error(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with (tmp_path / "log").open("a") as log, pytest.raises(KeyError), terminal.kept_terminal(log):
        raise KeyError
    print("back")
    print("back, too", file=sys.stderr)
    assert capfd.readouterr() == ("back\n", "back, too\n")
    assert terminal.standard_error() is sys.stderr


def test_the_outer_one_stands(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    with outer.open("a") as log, inner.open("a") as other, terminal.kept_terminal(log):
        with terminal.kept_terminal(other):
            print("noise")
        print("noise")
        assert terminal.standard_output() is not sys.stdout
    assert outer.read_text() == "noise\n" * 2
    assert inner.read_text() == ""


def test_streams_without_a_descriptor_are_turned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    output, error, log = StringIO(), StringIO(), StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", error)
    with terminal.kept_terminal(log) as answer:
        print("noise")
        print("noise", file=sys.stderr)
        print("answer", file=answer)
        terminal.error_console().print("message")
    print("after")
    assert (output.getvalue(), error.getvalue(), log.getvalue()) == (
        "answer\nafter\n",
        "message\n",
        "noise\nnoise\n",
    )
