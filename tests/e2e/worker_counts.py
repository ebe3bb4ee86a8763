"""What the processor counted, asked of a running engine's worker (vLLM's ``worker_extension_cls``)."""

from __future__ import annotations

from typing import Any


class WorkerCounts:
    """Becomes a base of vLLM's worker class."""

    def onceedit_counts(self) -> dict[str, int]:
        """The step's tally."""
        from onceedit_vllm import OnceEditLogitsProcessor

        runner: Any = self.model_runner  # type: ignore[attr-defined]
        on_v1 = hasattr(runner, "input_batch")
        processors = runner.input_batch.logitsprocs.all if on_v1 else runner.sampler.logits_processors
        (ours,) = [p for p in processors if isinstance(p, OnceEditLogitsProcessor)]
        return (ours._v1 or ours._v2)._step.tally()  # type: ignore[union-attr]
