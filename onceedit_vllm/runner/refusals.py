"""Engines in which the edits could not work, refused before they start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from onceedit_vllm.config import AlignmentConfig

_attached: WeakValueDictionary[int, VllmConfig] = WeakValueDictionary()


def refuse_second(vllm_config: VllmConfig) -> None:
    """Refuse a second processor in one engine: it would fuse twice.

    Raises:
        BadInputError: This engine has one already.
    """
    if _attached.get(id(vllm_config)) is vllm_config:
        raise BadInputError(
            "OnceEditLogitsProcessor is listed twice for this engine (by class, by name, or by an entry "
            "point): list it once in logits_processors."
        )
    _attached[id(vllm_config)] = vllm_config


def refuse_dense_ranks(vllm_config: VllmConfig, config: AlignmentConfig) -> None:
    """Refuse a kind whose greedy rows need more than what travels between ranks.

    Raises:
        BadInputError: The kind is dense, and the engine has several workers.
    """
    size = vllm_config.parallel_config.world_size
    if size > 1 and config.dense_kind is not None:
        raise BadInputError(
            f'additional_config["onceedit"]: alignment.kind "{config.kind}" needs the plug-in\'s whole '
            f'distribution on every worker, and the engine has {size}: take the kind "textual", or '
            "tensor_parallel_size=1"
        )


def refuse_unsupported(vllm_config: VllmConfig) -> None:
    """Refuse engine settings under which answers would be wrong, at start-up.

    Data parallelism is none of them: every rank is an engine of its own, with its own batch, plug-in and
    gate; no logits processor runs in the dummy batches that keep the ranks in step.

    Raises:
        BadInputError: Speculative decoding, several workers that are not all ranks of tensor parallelism, a
            launch by torchrun, batch-sharded sampling; under V2 also sleep mode and prompt embeddings.
    """
    for reason in (*_any_runner(vllm_config), *_v2(vllm_config)):
        raise BadInputError(f"OnceEditLogitsProcessor {reason}.")


def _any_runner(vllm_config: VllmConfig) -> Iterator[str]:
    parallel = vllm_config.parallel_config
    if vllm_config.speculative_config is not None:
        yield "does not work with speculative decoding yet: start the engine without speculative_config"
    if parallel.enable_batch_sharded_sampling:
        yield (
            "needs every worker to see every request: start the engine without enable_batch_sharded_sampling"
        )
    if parallel.distributed_executor_backend == "external_launcher":
        yield (
            "runs its plug-in inside one worker, and an external launcher starts several engines that must "
            "sample alike: let vLLM start its workers (leave distributed_executor_backend out)"
        )
    # Everything that multiplies the workers of one engine is in it, also what vLLM will add.
    if parallel.world_size > parallel.tensor_parallel_size:
        yield (
            "needs every worker to see all logits of every step: start the engine with "
            f"pipeline_parallel_size=1 (got {parallel.pipeline_parallel_size}) and "
            f"prefill_context_parallel_size=1 (got {parallel.prefill_context_parallel_size}); "
            f"tensor_parallel_size is {parallel.tensor_parallel_size}, and there are "
            f"{parallel.world_size} workers"
        )


def _v2(vllm_config: VllmConfig) -> Iterator[str]:
    """V1 builds its processors before the memory pool of the weights exists, and names such prompts."""
    if not vllm_config.use_v2_model_runner:
        return
    model = vllm_config.model_config
    # Sleep level 2 gives up what was allocated while the LLM was loaded, and V2 builds its processors then
    # (vllm/v1/worker/gpu_worker.py, load_model). A processor is told neither of the sleep nor its level.
    if model.enable_sleep_mode:
        yield (
            "would lose its plug-in's weights at sleep level 2 under vLLM's V2 model runner: start the "
            "engine without enable_sleep_mode, or with VLLM_USE_V2_MODEL_RUNNER=0"
        )
    # V2 stages token 0 in place of an embedding, and nothing a processor sees tells it from the real token.
    if model.enable_prompt_embeds:
        yield (
            "cannot tell a prompt of embeddings from a text under vLLM's V2 model runner: start the engine "
            "without enable_prompt_embeds, or with VLLM_USE_V2_MODEL_RUNNER=0"
        )
