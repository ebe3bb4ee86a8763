"""Builds a :class:`~onceedit_vllm.runner.step.FusionStep` for one engine, checking everything first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.attachment import attach, refuse_dense_elsewhere
from onceedit_vllm.runner.decisions import DecisionsLog
from onceedit_vllm.runner.ranks import FirstRank, OtherRank
from onceedit_vllm.runner.refusals import refuse_dense_ranks, refuse_second, refuse_unsupported
from onceedit_vllm.runner.step import FusionStep
from onceedit_vllm.runner.swap import PackSwap

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from onceedit_vllm.alignment.align import Alignment
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.host import PlugInClient, Vocabulary
    from onceedit_vllm.runner.metrics import Measure
    from onceedit_vllm.runner.rank_group import RankGroup
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


class Attached(NamedTuple):
    """What one worker of an engine holds; ``swap`` is None where the plug-in is not in its process."""

    step: FusionStep
    swap: PackSwap | None


def build_step(vllm_config: VllmConfig, observe: Callable[[Measure, float], None]) -> Attached:
    """Load the pack, align it with the engine's LLM (cached), and attach to the plug-in.

    Of several tensor-parallel ranks the first one has the plug-in; all of them call this, and where it
    fails on one it fails on all.

    Args:
        vllm_config: The engine's.
        observe: Told what is measured of every step.

    Raises:
        OnceEditError: Anything is missing, damaged or does not fit; the engine does not start.
    """
    from onceedit_vllm.runner.rank_group import RankGroup

    config = serving_config(vllm_config.additional_config)
    refuse_second(vllm_config)
    refuse_unsupported(vllm_config)
    refuse_dense_ranks(vllm_config, config.alignment)
    refuse_dense_elsewhere(config)
    if vllm_config.parallel_config.world_size == 1:
        return _assemble(vllm_config, config, observe, None)
    group = RankGroup.of_engine()
    attached = group.in_turns(lambda: _assemble(vllm_config, config, observe, group))
    group.connect()
    return attached


def _assemble(
    vllm_config: VllmConfig,
    config: ServingConfig,
    observe: Callable[[Measure, float], None],
    group: RankGroup | None,
) -> Attached:
    """One rank's part; the first one attaches to the plug-in, counts and logs."""
    from onceedit_vllm.fusion.fuser import Fuser
    from onceedit_vllm.runner.scope import PromptScope
    from onceedit_vllm.runner.turns import ChatTurns

    pack, alignment, vocabulary = _align(vllm_config, config)
    turns = ChatTurns.of(_llm_tokenizer(vllm_config), vocabulary.surface, config.chat_template)
    scope_of = partial(
        PromptScope, surface=vocabulary.surface, kind=config.scope, turns=turns, window=config.window
    )
    host, client, log = None, None, None
    if group is None or group.is_first:
        client, host = attach(pack, config, vocabulary, partial(observe, "plugin_step_seconds"))
        _announce(pack, alignment, scope_of(pack.edits), config.threshold)
        log = None if config.decisions_log is None else DecisionsLog(config.decisions_log)
    ranks = None if group is None else _rank_of(group, client, config)
    fuser = Fuser(alignment, config.fusion, str(vllm_config.device_config.device))
    eos_id = vocabulary.surface.eos_id if config.on_failure == "stop" else None
    plugin = ranks or client
    assert plugin is not None
    step = FusionStep(plugin, fuser, scope_of, config.weight, log, eos_id, observe, ranks)
    return Attached(step, None if host is None else PackSwap(host, pack.root))


def _align(vllm_config: VllmConfig, config: ServingConfig) -> tuple[EditPack, Alignment, Vocabulary]:
    from onceedit_vllm.alignment.align import align
    from onceedit_vllm.alignment.surface import Surface
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.plugin.host import Vocabulary

    pack = EditPack.load(config.pack)
    tokenizer = _llm_tokenizer(vllm_config)
    alignment = align(
        pack, _llm_folder(vllm_config), config=config.alignment, tokenizer=tokenizer, cache=config.cache_dir
    )
    width = vllm_config.model_config.get_vocab_size()
    return (
        pack,
        alignment,
        Vocabulary(Surface.of(tokenizer), alignment.carry, alignment.spellings, width),
    )


def _rank_of(group: RankGroup, client: PlugInClient | None, config: ServingConfig) -> FirstRank | OtherRank:
    """This rank's end of what the ranks share; the first has the plug-in's client."""
    group.open()
    if client is None:
        return OtherRank(group, config.check_ranks)
    return FirstRank(client, group, config.check_ranks)


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
