"""Builds a :class:`~onceedit_vllm.runner.step.FusionStep` for one engine, checking everything first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.gate import Gate
from onceedit_vllm.runner.step import FusionStep

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_EXAMPLE = 'LLM(..., additional_config={"onceedit": {"pack": "PACK_FOLDER"}})'


def serving_config(additional_config: object) -> ServingConfig:
    """Read ``additional_config["onceedit"]``.

    Raises:
        BadInputError: It is missing, has unknown keys or values of a wrong type.
    """
    from pydantic import ValidationError

    ours: Any = additional_config.get("onceedit") if isinstance(additional_config, Mapping) else None
    if ours is None:
        raise BadInputError(f"OnceEditLogitsProcessor is not configured: pass {_EXAMPLE}.")
    try:
        return ServingConfig.model_validate(ours)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'onceedit'}: {e['msg']}" for e in error.errors())
        raise BadInputError(f'additional_config["onceedit"]: {wrong}. Expected e.g. {_EXAMPLE}.') from error


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


def refuse_unsupported(vllm_config: VllmConfig) -> None:
    """Refuse engine settings under which answers would be wrong, at start-up.

    Raises:
        BadInputError: Speculative decoding, or more than one worker.
    """
    parallel = vllm_config.parallel_config
    if vllm_config.speculative_config is not None:
        raise BadInputError(
            "OnceEditLogitsProcessor does not work with speculative decoding yet: start the engine without "
            "speculative_config."
        )
    if parallel.tensor_parallel_size > 1 or parallel.pipeline_parallel_size > 1:
        raise BadInputError(
            "OnceEditLogitsProcessor runs its plug-in inside one worker: start the engine with "
            f"tensor_parallel_size=1 (got {parallel.tensor_parallel_size}) and pipeline_parallel_size=1 "
            f"(got {parallel.pipeline_parallel_size})."
        )


def build_step(vllm_config: VllmConfig) -> FusionStep:
    """Load the pack, align it with the engine's LLM (cached), and start the plug-in.

    Raises:
        OnceEditError: Anything is missing, damaged or does not fit; the engine does not start.
    """
    from vllm.logger import init_logger

    from onceedit_vllm.alignment.align import align
    from onceedit_vllm.alignment.surface import Surface
    from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
    from onceedit_vllm.edits import TEMPLATES
    from onceedit_vllm.fusion.fuser import Fuser
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.local import LocalHost
    from onceedit_vllm.plugin.textsync import TextSync

    config = serving_config(vllm_config.additional_config)
    refuse_second(vllm_config)
    refuse_unsupported(vllm_config)
    pack = EditPack.load(config.pack)
    tokenizer = _llm_tokenizer(vllm_config)
    alignment = align(
        pack,
        _llm_folder(vllm_config),
        config=config.alignment,
        tokenizer=tokenizer,
        cache=config.cache_dir,
    )
    host = LocalHost(pack.model_dir, pack.manifest.weight_token_id, config.plugin)
    template = TEMPLATES[pack.manifest.template]
    textsync = TextSync(
        load_tokenizer(pack.model_dir),
        Surface.of(tokenizer),
        prefix=template.prefix,
        suffix=template.suffix,
        max_context=host.max_context,
    )
    threshold = pack.manifest.threshold if config.threshold is None else config.threshold
    # Below vLLM's own logger, so that its level and format apply.
    init_logger("vllm.onceedit").info(
        "onceedit: pack %s (%d edits), gate threshold %.3f, %d anchors, kind %s",
        pack.root,
        len(pack.edits),
        threshold,
        alignment.report.num_anchors,
        alignment.report.kind,
    )
    fuser = Fuser(alignment, config.fusion, str(vllm_config.device_config.device))
    return FusionStep(host, textsync, fuser, Gate(threshold, config.decisions_log))


def _llm_tokenizer(vllm_config: VllmConfig) -> Any:
    """The LLM's tokenizer as vLLM has it: ``--tokenizer``, its mode and its revision have had their say.

    Raises:
        BadInputError: The engine has none.
    """
    from vllm.tokenizers.registry import cached_tokenizer_from_config

    tokenizer = cached_tokenizer_from_config(vllm_config.model_config)
    if tokenizer is None:
        raise BadInputError(
            "OnceEditLogitsProcessor reads the text behind the LLM's tokens: start the engine without "
            "skip_tokenizer_init."
        )
    return tokenizer


def _llm_folder(vllm_config: VllmConfig) -> Path:
    """Config and weights of the LLM: its folder, or the hub's at the revision that vLLM was given.

    Raises:
        ModelError: The hub has none, or cannot be reached.
    """
    from onceedit_vllm.models.hub import fetch_from_hub

    model = vllm_config.model_config
    folder = Path(model.model)
    if folder.is_dir():
        return folder
    cache = vllm_config.load_config.download_dir
    return fetch_from_hub(model.model, progress=False, revision=model.revision, cache_dir=cache)
