"""A server in a process of its own, over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from tests.e2e.engine import runner_environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Use as a context manager: up on entry, ended by a signal on exit.

    Args:
        command: Starts it; ``--host`` and ``--port`` are added.
        log: Where it prints.
        ending: The signal that ends it.
        variables: Of its environment.
    """

    def __init__(
        self, command: list[str], log: Path, ending: signal.Signals = signal.SIGTERM, **variables: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [*command, "--host", "127.0.0.1", "--port", str(self.port)]
        self._log = log
        self._ending = ending
        self._environment = {**runner_environment("v1"), **variables}

    def __enter__(self) -> Server:
        with self._log.open("w") as out:
            self._process = subprocess.Popen(
                self._command, stdout=out, stderr=subprocess.STDOUT, env=self._environment
            )
        try:
            self._wait_until_up()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._process.pid, self._ending)
        self.exit_code = self._process.wait(timeout=60)

    def log(self) -> str:
        """Everything that was printed so far."""
        return self._log.read_text(encoding="utf-8")

    def metrics(self) -> dict[str, float]:
        """What ``/metrics`` shows: values by name and labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=20) as answer:
            lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def _wait_until_up(self) -> None:
        for _ in range(180):
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                assert self._process.poll() is None, self.log()[-6000:]
                time.sleep(1)
        raise AssertionError("the server did not come up:\n" + self.log()[-6000:])
