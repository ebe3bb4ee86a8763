"""A process that has imported vLLM, and forks a child for each engine. Started by ``engine.py``.

The import takes a quarter of a minute where cores are slow; an engine started from here does without.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any


def main() -> None:
    """Fork a child for every message, until the other end closes."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who asked waits for the children; none is a zombie
    while True:
        message, files, _, _ = socket.recv_fds(requests, 65536, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            requests.close()
            run_child(json.loads(message), files)
            return
        for file in files:
            os.close(file)
        requests.sendall(b"%d\n" % pid)


def preload() -> None:
    """Import what an engine needs, without running any of it."""
    from vllm import LLM  # noqa: F401
    from vllm.v1.engine import async_llm, core  # noqa: F401
    from vllm.v1.executor import multiproc_executor  # noqa: F401
    from vllm.v1.worker import cpu_worker  # noqa: F401

    import onceedit_vllm.runner.extension
    import onceedit_vllm.runner.processor  # noqa: F401


def run_child(call: dict[str, Any], files: Sequence[int]) -> None:
    """Run the child's module on its own stdin, stdout and replies."""
    stdin, log, replies = files
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(stdin, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdin = os.fdopen(0)
    os.environ.clear()  # tests may have changed theirs since this process began
    os.environ.update(call["env"])
    importlib.import_module(call["module"]).main(os.fdopen(replies, "w"))


if __name__ == "__main__":
    main()
