"""The one public class: a custom logits processor for both of vLLM's model runners."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as V2LogitsProcessor

from onceedit_vllm.runner.admission import admit

if TYPE_CHECKING:
    import torch
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.sample.logits_processor import BatchUpdate
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

    from onceedit_vllm.runner.v1 import V1Adapter
    from onceedit_vllm.runner.v2 import V2Adapter


class OnceEditLogitsProcessor(V1LogitsProcessor, V2LogitsProcessor):
    """Lets a served LLM answer with the edits of a pack.

    Pass the class, or ``"onceedit_vllm:OnceEditLogitsProcessor"``, to vLLM::

        LLM(model, logits_processors=[OnceEditLogitsProcessor],
            additional_config={"onceedit": {"pack": "PACK_FOLDER"}})

    Both runners construct it: V1 as ``(vllm_config, device, is_pin_memory)``, V2 as
    ``(vllm_config, req_states)``; the number of arguments tells them apart.

    Attributes:
        swap: Changes the pack while the engine serves; None where its plug-in is not in this process.
        is_first: This worker speaks for all of its engine.

    Raises:
        OnceEditError: The configuration, the pack, the models or the engine's settings do not
            fit. The engine does not start.
    """

    def __init__(self, vllm_config: VllmConfig, *runner_args: Any) -> None:
        from vllm import envs

        from onceedit_vllm.runner.assembly import build_step, serving_config
        from onceedit_vllm.runner.exposition import open_meter
        from onceedit_vllm.runner.summary import Summary
        from onceedit_vllm.runner.v1 import V1Adapter
        from onceedit_vllm.runner.v2 import V2Adapter

        config = serving_config(vllm_config.additional_config)
        # First, because a port that is taken is said before anything is loaded.
        self._meter = open_meter(vllm_config, config.metrics_port)
        observe = (lambda name, value: None) if self._meter is None else self._meter.observe
        step, self.swap = build_step(vllm_config, observe)
        #: Everything counted since the start; may wait for the GPU.
        self.tally = step.tally
        self.is_first = step.is_first
        if self._meter is not None:
            self._meter.follow(step.tally)
        allowed = config.request_override
        self._summary = Summary(step.tally, envs.VLLM_LOG_STATS_INTERVAL) if step.is_first else None
        self._v1: V1Adapter | None = None
        self._v2: V2Adapter | None = None
        if len(runner_args) == 1:
            self._v2 = V2Adapter(step, runner_args[0], allowed)
        else:
            self._v1 = V1Adapter(step, allowed)

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse at admission (HTTP 400) what a request cannot have.

        Raises:
            BadInputError: See :func:`~onceedit_vllm.runner.admission.admit`.
        """
        admit(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """V1: False, the edits change the greedy token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """V1: requests came, went or moved."""
        if self._v1 is not None:
            self._v1.update_state(batch_update)

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """V2: a request enters a slot. False when it is left to the LLM for good."""
        return self._v2 is not None and self._v2.add_request(req_idx, sampling_params)

    def apply_staged_writes(self) -> None:
        """V2: a step of the engine begins."""
        if self._v2 is not None:
            self._v2.begin_step()

    def apply(self, logits: torch.Tensor, ctx: LogitsContext | None = None) -> torch.Tensor:
        """Fuse in place. V1 passes the logits alone, V2 the step's layout too."""
        started = time.perf_counter()
        if ctx is not None and self._v2 is not None:
            logits = self._v2.apply(logits, ctx)
        elif self._v1 is not None:
            logits = self._v1.apply(logits)
        if self.swap is not None:
            self.swap.tick()
        if self._meter is not None:
            self._meter.observe("step_seconds", time.perf_counter() - started)
            self._meter.tick()
        if self._summary is not None:
            self._summary.tick()
        return logits
