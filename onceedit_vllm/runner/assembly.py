"""Builds a :class:`~onceedit_vllm.runner.step.FusionStep` for one engine, checking everything first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.decisions import DecisionsLog
from onceedit_vllm.runner.refusals import refuse_second, refuse_unsupported
from onceedit_vllm.runner.step import FusionStep

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from onceedit_vllm.alignment.align import Alignment
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.host import PlugInClient, Vocabulary
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
    from onceedit_vllm.fusion.fuser import Fuser
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.host import Vocabulary
    from onceedit_vllm.runner.scope import PromptScope

    config = serving_config(vllm_config.additional_config)
    refuse_second(vllm_config)
    refuse_unsupported(vllm_config)
    refuse_dense_elsewhere(config)
    pack = EditPack.load(config.pack)
    tokenizer = _llm_tokenizer(vllm_config)
    alignment = align(
        pack, _llm_folder(vllm_config), config=config.alignment, tokenizer=tokenizer, cache=config.cache_dir
    )
    width = vllm_config.model_config.get_vocab_size()
    vocabulary = Vocabulary(Surface.of(tokenizer), alignment.carry, alignment.spellings, width)
    plugin = attach(pack, config, vocabulary)
    scope = PromptScope(pack.edits, vocabulary.surface, config.scope)
    _announce(pack, alignment, scope, config.threshold)
    fuser = Fuser(alignment, config.fusion, str(vllm_config.device_config.device))
    log = None if config.decisions_log is None else DecisionsLog(config.decisions_log)
    eos_id = vocabulary.surface.eos_id if config.on_failure == "stop" else None
    return FusionStep(plugin, fuser, scope, config.weight, log, eos_id)


def refuse_dense_elsewhere(config: ServingConfig) -> None:
    """Refuse a dense kind whose plug-in runs in another process.

    Raises:
        BadInputError: It needs all that the plug-in says at every step, and that is not sent.
    """
    if config.plugin.host != "local" and config.alignment.dense_kind is not None:
        raise BadInputError(
            f'alignment.kind "{config.alignment.kind}" needs all that the plug-in says at every step: serve '
            'it with plugin={"host": "local"}, or take kind "textual".'
        )


def attach(pack: EditPack, config: ServingConfig, vocabulary: Vocabulary) -> PlugInClient:
    """This engine's end of the plug-in, wherever the settings want it: the one place that chooses.

    Raises:
        OnceEditError: The host cannot be started or attached to.
    """
    if config.plugin.host == "local":
        from onceedit_vllm.plugin.local import LocalHost

        return LocalHost(pack, config.plugin).attach(vocabulary, config.threshold)
    from vllm.logger import init_logger

    from onceedit_vllm.plugin.ray_host import join
    from onceedit_vllm.plugin.remote import RemoteClient

    joined = join(pack, config.plugin)
    init_logger("vllm.onceedit").info(
        "onceedit: the plug-in host %s listens at %s%s",
        config.plugin.name,
        joined.endpoint.address,
        "; no cluster of Ray was running, so this engine has started one, which ends with it"
        if joined.is_own_cluster
        else f"; it ends with its cluster, or by `onceedit host stop {config.plugin.name}`",
    )
    return RemoteClient(joined.endpoint, vocabulary, config.threshold, config.plugin)


def _announce(pack: EditPack, alignment: Alignment, scope: PromptScope, threshold: float | None) -> None:
    """Say once what is served. Below vLLM's own logger, so that its level and format apply."""
    from vllm.logger import init_logger

    log = init_logger("vllm.onceedit")
    log.info(
        "onceedit: pack %s (%d edits), gate threshold %.3f (%.3f for [WEIGHT] alone), %d anchors, kind %s",
        pack.root,
        len(pack.edits),
        pack.manifest.threshold if threshold is None else threshold,
        pack.manifest.weight_threshold if threshold is None else threshold,
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
