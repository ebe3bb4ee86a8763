"""Engines of benchmarks, each in a process of its own; both ends of the line between.

A parent writes JSON lines to the child's standard input. vLLM prints to standard output, so the answers go to
a file descriptor of their own, the child's first argument.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@contextmanager
def engine(script: str, settings: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """An engine that is ready; its words go to a log that is shown where it dies."""
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, str(HERE / script), str(write_end)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[write_end], text=True
        )
        os.close(write_end)
        child.stdout = os.fdopen(read_end)
        try:
            ask(child, settings)
            yield child
        except RuntimeError as error:
            log.seek(0)
            raise RuntimeError(f"{error}:\n{log.read()[-4000:]}") from error
        finally:
            _end(child)


def ask(child: subprocess.Popen[str], call: dict[str, Any]) -> dict[str, Any]:
    """What the engine answers.

    Raises:
        RuntimeError: It has died.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(call) + "\n")
    child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("an engine did not start, or has died")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _end(child: subprocess.Popen[str]) -> None:
    """Let it end by itself, so that its workers, and a cluster it has started, do too; else kill it."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    try:
        child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    child.stdout.close()


def answer_calls(
    make: Callable[[dict[str, Any]], Any], run: Callable[[Any, dict[str, Any]], dict[str, Any]]
) -> None:
    """The child's end: make an engine of the first line, and answer the others until there are no more."""
    from onceedit_vllm.runner.offline import close_llm

    replies = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    engine = make(json.loads(sys.stdin.readline()))
    print(json.dumps({"ready": True}), file=replies)
    for line in sys.stdin:
        print(json.dumps(run(engine, json.loads(line))), file=replies)
    close_llm(engine)
