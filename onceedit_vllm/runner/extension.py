"""What an engine's ``collective_rpc`` can ask of its workers: ``worker_extension_cls``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from onceedit_vllm.runner.processor import OnceEditLogitsProcessor
    from onceedit_vllm.runner.swap import PackSwap


class OnceEditWorkerExtension:
    """Becomes a base of vLLM's worker class; see :class:`~onceedit_vllm.runner.swap.PackSwap`.

    ::

        llm = LLM(..., worker_extension_cls="onceedit_vllm.runner.extension.OnceEditWorkerExtension")
        llm.collective_rpc("onceedit_load", args=("NEW_PACK_FOLDER",))
        llm.collective_rpc("onceedit_status")       # until it says "loaded"
        llm.collective_rpc("onceedit_activate")
    """

    def onceedit_load(self, pack: str) -> None:
        """Begin to load a pack beside the active one; requests are served meanwhile."""
        _swap_of(self).load(pack)

    def onceedit_status(self) -> dict[str, Any]:
        """What became of that, and what is active."""
        return _swap_of(self).status()

    def onceedit_activate(self) -> int:
        """Let new requests have the loaded pack; running ones finish with theirs."""
        return _swap_of(self).activate()

    def onceedit_rollback(self) -> None:
        """Begin to load the pack that was active before."""
        _swap_of(self).rollback()

    def onceedit_tally(self) -> dict[str, int]:
        """Everything that was counted since the start."""
        return processor_of(self).tally()


def processor_of(worker: Any) -> OnceEditLogitsProcessor:
    """The processor in a worker.

    V1 keeps them with its batch, V2 with its sampler (vllm/v1/worker/gpu_input_batch.py,
    vllm/v1/worker/gpu/sample/sampler.py); neither is public.
    """
    from onceedit_vllm.runner.processor import OnceEditLogitsProcessor

    runner = worker.model_runner
    on_v1 = hasattr(runner, "input_batch")
    processors = runner.input_batch.logitsprocs.all if on_v1 else runner.sampler.logits_processors
    (ours,) = [each for each in processors if isinstance(each, OnceEditLogitsProcessor)]
    return ours


def _swap_of(worker: Any) -> PackSwap:
    swap = processor_of(worker).swap
    if swap is None:
        raise BadInputError(
            "the pack of this engine cannot be changed from its workers: there are several, or the plug-in "
            "runs elsewhere"
        )
    return swap
