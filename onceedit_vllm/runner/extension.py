"""What an engine's ``collective_rpc`` can ask of its workers: ``worker_extension_cls``.

Nothing about packs raises. Of several workers vLLM takes the answers one after the other, and where one is an
error it leaves those behind it to be read as the answers to the next call
(vllm/v1/executor/multiproc_executor.py, ``collective_rpc``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import BadInputError, OnceEditError

if TYPE_CHECKING:
    from onceedit_vllm.runner.processor import OnceEditLogitsProcessor
    from onceedit_vllm.runner.swap import PackSwap

logger = logging.getLogger("onceedit_vllm.runner")

#: The name of the class below for vLLM.
EXTENSION = "onceedit_vllm.runner.extension.OnceEditWorkerExtension"
#: What a worker says of the packs; None from one that has no plug-in.
Status = dict[str, Any] | None


class OnceEditWorkerExtension:
    """Becomes a base of vLLM's worker class; see :class:`~onceedit_vllm.runner.swap.PackSwap`.

    ::

        llm = LLM(..., worker_extension_cls="onceedit_vllm.runner.extension.OnceEditWorkerExtension")
        llm.collective_rpc("onceedit_load", args=("NEW_PACK_FOLDER",))
        llm.collective_rpc("onceedit_status")       # until its state is "loaded"
        llm.collective_rpc("onceedit_activate")

    Every worker answers; of several tensor-parallel ones the first has the plug-in, and the others say None.
    An answer is the status afterwards, with ``refused``: why the call was, or None.
    """

    def onceedit_load(self, pack: str) -> Status:
        """Begin to load a pack beside the active one; requests are served meanwhile."""
        return _answer(self, lambda swap: swap.load(pack))

    def onceedit_status(self) -> Status:
        """What became of that, and what is active."""
        return _answer(self, lambda swap: None)

    def onceedit_activate(self, pack: str | None = None) -> Status:
        """Let new requests have the loaded pack; running ones finish with theirs.

        Args:
            pack: Only if it is this one that was loaded; None: whichever.
        """
        return _answer(self, lambda swap: swap.activate(pack))

    def onceedit_rollback(self) -> Status:
        """Begin to load the pack that was active before."""
        return _answer(self, lambda swap: swap.rollback())

    def onceedit_tally(self) -> dict[str, int]:
        """Everything that was counted since the start."""
        return processor_of(self).tally()


def refuse_other_extension(name: str) -> None:
    """Refuse workers that do not know these calls.

    Args:
        name: vLLM's ``worker_extension_cls``: the dotted name of a class, or empty.

    Raises:
        BadInputError: It is not the class above, and not built on it.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute) if module else None
    except (ImportError, AttributeError) as error:
        raise BadInputError(f"--worker-extension-cls {name}: cannot be imported ({error})") from error
    if not (isinstance(found, type) and issubclass(found, OnceEditWorkerExtension)):
        raise BadInputError(
            f"--worker-extension-cls {name or '(none)'}: packs are changed through {EXTENSION}; give that, "
            "or a class of your own that is built on it"
        )


def _answer(worker: Any, act: Callable[[PackSwap], object]) -> Status:
    try:
        processor = processor_of(worker)
        if not processor.is_first:
            return None
        if processor.swap is None:
            return {"refused": _elsewhere(worker)}
        return _acted(processor.swap, act)
    except Exception as error:
        logger.exception("onceedit: a call about the packs failed")
        return {"refused": f"{type(error).__name__}: {error}"}


def _acted(swap: PackSwap, act: Callable[[PackSwap], object]) -> dict[str, Any]:
    refused = None
    try:
        act(swap)
    except OnceEditError as error:
        refused = str(error)
    return {**swap.status(), "refused": refused}


def _elsewhere(worker: Any) -> str:
    from onceedit_vllm.runner.assembly import serving_config

    name = serving_config(worker.vllm_config.additional_config).plugin.name
    return (
        "the plug-in of this engine runs in a host of Ray, which other engines may share: change its pack "
        f"with `onceedit host load PACK --name {name}`"
    )


def processor_of(worker: Any) -> OnceEditLogitsProcessor:
    """The processor in a worker.

    V1 keeps them with its batch, V2 with its sampler (vllm/v1/worker/gpu_input_batch.py,
    vllm/v1/worker/gpu/sample/sampler.py); neither is public.
    """
    from onceedit_vllm.runner.processor import OnceEditLogitsProcessor

    runner = worker.model_runner
    on_v1 = hasattr(runner, "input_batch")
    processors = runner.input_batch.logitsprocs.all if on_v1 else runner.sampler.logits_processors
    ours = [each for each in processors if isinstance(each, OnceEditLogitsProcessor)]
    if not ours:
        raise BadInputError("this engine was started without OnceEditLogitsProcessor")
    return ours[0]
