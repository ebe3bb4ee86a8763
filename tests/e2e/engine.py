"""Starts an engine child on either runner and talks to it."""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class EngineError(Exception):
    """The engine did not start, or a call failed; the message is the engine's own."""


def runner_environment(runner: str, *, fork: bool = True) -> dict[str, str]:
    """The environment under which vLLM takes the V1 or the V2 runner on a CPU.

    Args:
        runner: ``v1`` or ``v2``.
        fork: Fork the engine's processes, three times as fast; else they are spawned, as users have it.
    """
    env = dict(os.environ, VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="INFO", HF_HUB_OFFLINE="1")
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE / "startup"), env.get("PYTHONPATH", "")]))
    env["ONCEEDIT_TEST_FORK"] = "1" if fork else "0"
    env.pop("VLLM_USE_V2_MODEL_RUNNER", None)
    if runner == "v2":
        env.update(TRITON_INTERPRET="1", VLLM_USE_V2_MODEL_RUNNER="1")
    return env


class _Preloaded:
    """The process of ``preloaded.py`` for one runner."""

    def __init__(self, runner: str) -> None:
        self._requests, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.preloaded", str(theirs.fileno())], cwd=HERE.parents[1],
            stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=runner_environment(runner),
        )  # fmt: skip
        theirs.close()
        atexit.register(self.close)

    def fork(self, module: str, env: dict[str, str], files: list[int]) -> int:
        """Run a module's ``main`` in a child with these as stdin, log and replies; its process id."""
        message = json.dumps({"module": module, "env": env}).encode()
        socket.send_fds(self._requests, [message], files)
        return int(self._requests.recv(32))

    def close(self) -> None:
        self._requests.close()
        self._process.wait()


@functools.cache
def _preloaded(runner: str) -> _Preloaded:
    return _Preloaded(runner)


class Engine:
    """One engine, and its processes. Use as a context manager.

    Args:
        runner: ``v1`` or ``v2``.
        env: More of the environment.
        is_async: With ``AsyncLLM``, as vLLM's server has it, instead of ``LLM``.
        **engine_args: Of ``vllm.LLM``.
    """

    def __init__(
        self, runner: str, env: dict[str, str] | None = None, *, is_async: bool = False, **engine_args: Any
    ) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- lives as long as the engine
        calls_end, calls = os.pipe()
        replies, replies_end = os.pipe()
        module = "tests.e2e.async_engine_child" if is_async else "tests.e2e.engine_child"
        files = [calls_end, self._log.fileno(), replies_end]
        variables = runner_environment(runner) | (env or {})
        self._child = os.pidfd_open(_preloaded(runner).fork(module, variables, files))
        os.close(calls_end)
        os.close(replies_end)
        self._calls, self._replies = os.fdopen(calls, "w"), os.fdopen(replies)
        try:
            self.runner = self._call(engine_args)["runner"]
        except EngineError:
            self.close()
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(
        self, prompts: list[Any], params: dict[str, Any] | list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Answers, one dict a prompt; ``params`` for all prompts or one each."""
        return self._outputs({"call": "generate", "prompts": prompts, "params": _each(params, prompts)})

    def generate_on(
        self, prompts: list[str], params: dict[str, Any], ranks: list[int]
    ) -> list[dict[str, Any]]:
        """The same, each on a data-parallel rank; of an asynchronous engine."""
        call = {"call": "generate", "ranks": ranks}
        return self._outputs({**call, "prompts": prompts, "params": _each(params, prompts)})

    def abort(
        self, prompts: list[str], params: dict[str, Any], *, which: int, after_steps: int
    ) -> list[dict[str, Any]]:
        """Answers with one request aborted in flight."""
        call = {"call": "abort", "which": which, "after_steps": after_steps}
        return self._outputs({**call, "prompts": prompts, "params": _each(params, prompts)})

    def beam_search(self, prompts: list[str]) -> list[str]:
        """The best beam of each prompt."""
        return self._outputs({"call": "beam_search", "prompts": prompts})

    def metric(self, name: str) -> float:
        """The value of one of vLLM's own counters."""
        return self._outputs({"call": "metric", "name": name})

    def rpc(self, method: str, *args: Any) -> Any:
        """What the first worker answers to a method of its extension."""
        return self.rpc_by_rank(method, *args)[0]

    def rpc_by_rank(self, method: str, *args: Any) -> list[Any]:
        """What every worker answers."""
        return list(self._outputs({"call": "rpc", "method": method, "args": args}))

    def counts(self) -> dict[str, int]:
        """What the processor counted so far, with the plug-in's forward passes; the first worker's."""
        return self.rpc("onceedit_tally")

    def counts_by_rank(self) -> list[dict[str, int]]:
        """The same of every worker."""
        return self.rpc_by_rank("onceedit_tally")

    def rpc_midway(
        self, first: list[str], then: list[str], params: dict[str, Any], method: str, after_steps: int
    ) -> list[dict[str, Any]]:
        """Start requests, call a method after some steps, and send others then."""
        return self._outputs(
            {"call": "rpc_midway", "first": first, "then": then, "params": params, "method": method,
             "after_steps": after_steps}
        )  # fmt: skip

    def log(self) -> str:
        """Everything the engine's processes printed so far."""
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        """End the process; twice is harmless."""
        if self._calls.closed:
            return
        self._calls.close()
        ended, _, _ = select.select([self._child], [], [], 30)
        if not ended:
            signal.pidfd_send_signal(self._child, signal.SIGKILL)
            select.select([self._child], [], [], 30)
        os.close(self._child)
        self._replies.close()
        self._log.close()

    def _outputs(self, call: dict[str, Any]) -> Any:
        return self._call(call)["outputs"]

    def _call(self, message: dict[str, Any]) -> dict[str, Any]:
        self._calls.write(json.dumps(message) + "\n")
        self._calls.flush()
        line = self._replies.readline()
        if not line:
            raise EngineError("the engine process died:\n" + self.log()[-6000:])
        reply = json.loads(line)
        if "error" in reply:
            raise EngineError(reply["error"] + "\n" + self.log()[-6000:])
        return reply


def _each(params: dict[str, Any] | list[dict[str, Any]], prompts: list[Any]) -> list[dict[str, Any]]:
    return params if isinstance(params, list) else [params] * len(prompts)
