"""What vLLM would do on this machine, without starting an engine."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple


class RunnerProbe(NamedTuple):
    """What was found.

    Attributes:
        error: Why vLLM or our processor cannot be imported; None when both can.
        platform: Where vLLM would run: ``cpu``, ``cuda``, ...
        runner: ``V1`` or ``V2``, or "" when vLLM cannot be imported.
        reason: Why this runner.
    """

    error: str | None
    platform: str
    runner: str
    reason: str


def probe_runner() -> RunnerProbe:
    """Import vLLM and our processor, and tell the runner that vLLM chooses by default.

    vLLM decides in the same order: the environment variable, then whether it can use Triton.
    A feature that V2 does not support yet can still send a single engine to V1.
    """
    try:
        from vllm import envs
        from vllm.platforms import current_platform
        from vllm.triton_utils import HAS_TRITON

        import_module("onceedit_vllm.runner.processor")
    except Exception as error:
        # Whatever breaks here breaks serving: a missing package, a CUDA library, another vLLM.
        return RunnerProbe(f"{type(error).__name__}: {error}", "", "", "")
    platform = str(current_platform.device_type or "unknown")
    chosen = envs.VLLM_USE_V2_MODEL_RUNNER
    if chosen is not None:
        return RunnerProbe(None, platform, "V2" if chosen else "V1", "VLLM_USE_V2_MODEL_RUNNER is set")
    if HAS_TRITON:
        return RunnerProbe(None, platform, "V2", "vLLM can use Triton here")
    return RunnerProbe(None, platform, "V1", "vLLM cannot use Triton here")
