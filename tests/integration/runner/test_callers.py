"""The names on vLLM's stack that this room looks for, and that they are still there."""

from __future__ import annotations

import inspect

import pytest

from onceedit_vllm.runner.callers import _WARM_UP, is_warming_up

pytestmark = pytest.mark.integration

pytest.importorskip("vllm", reason="vLLM is not installed")


class Worker:
    """Calls as vLLM's worker does: the made-up requests come in through `execute_model` as well."""

    def execute_model(self) -> bool:
        return is_warming_up()

    def compile_or_warm_up_model(self) -> bool:
        return self.execute_model()

    def determine_available_memory(self) -> bool:
        return (lambda: self.execute_model())()


def test_made_up_requests_are_told_from_real_ones_by_who_sends_them():
    worker = Worker()
    assert worker.compile_or_warm_up_model()
    assert worker.determine_available_memory()
    assert not worker.execute_model()


def test_every_made_up_request_of_vllm_comes_in_under_these_two_calls():
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.worker import gpu_worker

    assert all(callable(getattr(gpu_worker.Worker, name)) for name in _WARM_UP)
    assert "warmup_kernels(" in inspect.getsource(gpu_worker.Worker.compile_or_warm_up_model)
    assert "profile_run(" in inspect.getsource(gpu_worker.Worker.determine_available_memory)
    # The executors call the two by name.
    assert all(f'"{name}"' in inspect.getsource(Executor) for name in _WARM_UP)
