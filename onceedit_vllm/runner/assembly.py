"""Builds a :class:`~onceedit_vllm.runner.step.FusionStep` for one engine, checking everything first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.gate import Gate
from onceedit_vllm.runner.refusals import refuse_second, refuse_unsupported
from onceedit_vllm.runner.step import FusionStep

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from onceedit_vllm.alignment.align import Alignment
    from onceedit_vllm.pack import EditPack, PackManifest
    from onceedit_vllm.runner.scope import PromptScope

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


def build_step(vllm_config: VllmConfig) -> FusionStep:
    """Load the pack, align it with the engine's LLM (cached), and start the plug-in.

    Raises:
        OnceEditError: Anything is missing, damaged or does not fit; the engine does not start.
    """
    from onceedit_vllm.alignment.align import align
    from onceedit_vllm.alignment.surface import Surface
    from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
    from onceedit_vllm.edits import TEMPLATES
    from onceedit_vllm.evidence import Evidence
    from onceedit_vllm.fusion.fuser import Fuser
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.local import LocalHost
    from onceedit_vllm.plugin.textsync import TextSync
    from onceedit_vllm.runner.scope import PromptScope

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
    surface, plugin_tokenizer = Surface.of(tokenizer), load_tokenizer(pack.model_dir)
    textsync = TextSync(
        plugin_tokenizer,
        surface,
        prefix=template.prefix,
        suffix=template.suffix,
        max_context=host.max_context,
    )
    scope, gate = PromptScope(pack.edits, surface, config.scope), gate_of(pack.manifest, config)
    _announce(pack, alignment, scope, gate)
    evidence = Evidence(pack.edits, plugin_tokenizer)
    fuser = Fuser(alignment, config.fusion, str(vllm_config.device_config.device))
    return FusionStep(host, textsync, fuser, gate, evidence, scope, config.weight)


def gate_of(manifest: PackManifest, config: ServingConfig) -> Gate:
    """The gate with the pack's thresholds, or with the setting that overrides both."""
    if config.threshold is not None:
        return Gate(config.threshold, config.decisions_log)
    return Gate(manifest.threshold, config.decisions_log, weight_threshold=manifest.weight_threshold)


def _announce(pack: EditPack, alignment: Alignment, scope: PromptScope, gate: Gate) -> None:
    """Say once what is served. Below vLLM's own logger, so that its level and format apply."""
    from vllm.logger import init_logger

    log = init_logger("vllm.onceedit")
    log.info(
        "onceedit: pack %s (%d edits), gate threshold %.3f (%.3f for [WEIGHT] alone), %d anchors, kind %s",
        pack.root,
        len(pack.edits),
        gate.threshold,
        gate.weight_threshold,
        alignment.report.num_anchors,
        alignment.report.kind,
    )
    if scope.num_unnamed:
        log.warning(
            "onceedit: %d of %d edits have no subject, so the plug-in reads every prompt, and where it names "
            "none [WEIGHT] decides alone; with a subject for each edit such prompts stay unread",
            scope.num_unnamed,
            len(pack.edits),
        )


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
