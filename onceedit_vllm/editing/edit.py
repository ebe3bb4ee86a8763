"""The editing stage: facts and a small model in, an EditPack out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter
from onceedit_vllm.editing.checkpoint import Checkpoint, training_fingerprint
from onceedit_vllm.editing.judge import Judge, Verdict
from onceedit_vllm.editing.plugin_model import (
    EditablePlugIn,
    choose_compute_dtype,
    init_weight_row,
    load_plugin,
    load_tokenizer,
)
from onceedit_vllm.editing.progress import TrainingProgress
from onceedit_vllm.editing.records import PlacedEdits, place_edits
from onceedit_vllm.editing.trainer import Course, EditingLoop
from onceedit_vllm.editing.unrelated import load_unrelated
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.pack import FORMAT_VERSION, EditPack, PackManifest, PackReport, check_out
from onceedit_vllm.wordings.file import check_wordings, join_aliases, load_wordings
from onceedit_vllm.wordings.wordings import Wordings

_log = logging.getLogger(__name__)


def edit(
    plugin: str | Path,
    edits: str | Path | Sequence[EditRecord],
    out: str | Path,
    *,
    unrelated: str | Path | None = None,
    wordings: str | Path | Sequence[Wordings] = (),
    config: EditingConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> EditPack:
    """Teach a plug-in the edits and write the pack.

    Args:
        plugin: A known name, a folder, or a hub id of a causal LM.
        edits: A file (see :func:`~onceedit_vllm.editing.records.load_edits`) or records.
        out: The pack's folder.
        unrelated: A file of prompts that must stay untouched, instead of the built-in set.
        wordings: Texts that were written for the edits, or their file; see
            :func:`~onceedit_vllm.wordings.write.write_wordings`. They join the built-in ones, and the pack
            keeps them.
        config: Settings of the stage.
        resume: Go on from the checkpoint that an interrupted run left beside `out`.
        overwrite: Replace a pack at `out`.
        progress: Show a bar with both losses.

    Raises:
        BadInputError: The edits, their wordings or the unrelated prompts are wrong, `out` is taken,
            or the checkpoint belongs to another training.
        ModelError: The plug-in cannot be found or loaded.
    """
    config = config or EditingConfig()
    root = Path(out).expanduser()
    check_out(root, overwrite=overwrite)
    # Whatever is wrong with the edits is said before a model is fetched or loaded.
    placed = place_edits(edits)
    texts = find_wordings(wordings, placed.records)
    records = join_aliases(placed.records, texts)
    unrelated_items = load_unrelated(unrelated) if unrelated is not None else None
    base = _open(plugin, placed, config, progress)
    fingerprint = training_fingerprint(base.fingerprint, records, unrelated_items, config, texts)
    checkpoint = Checkpoint(root, fingerprint)
    augmenter = Augmenter(records, unrelated_items, config, texts)
    try:
        judge = Judge(augmenter, config)
        init_weight_row(base, augmenter.examples(0))
        shown = TrainingProgress(len(records), visible=progress)
        loop = EditingLoop(base, augmenter, judge, config, checkpoint, shown)
        verdict = loop.run(resume=resume)
        made = Made(config, records, loop.course, verdict, judge.report(verdict), texts)
        pack = write_pack(base, made, root, str(plugin), overwrite)
    except BaseException:
        checkpoint.discard_unfinished()
        raise
    checkpoint.discard()
    return pack


def _open(plugin: str | Path, edits: PlacedEdits, config: EditingConfig, progress: bool) -> EditablePlugIn:
    """Find and load the plug-in, once its tokenizer is known to spell the targets."""
    from onceedit_vllm.models import resolve_model

    folder = resolve_model(str(plugin), progress=progress)
    tokenizer = load_tokenizer(folder)
    edits.check_targets(tokenizer)
    torch.manual_seed(config.seed)
    return load_plugin(folder, tokenizer, choose_compute_dtype(config.compute_dtype), config.trained_share)


def find_wordings(
    given: str | Path | Sequence[Wordings], records: Sequence[EditRecord]
) -> tuple[Wordings, ...]:
    """The wordings of some edits, read from a file or taken as they are, and checked.

    Raises:
        BadInputError: They cannot be read or used.
    """
    return load_wordings(given, records) if isinstance(given, str | Path) else check_wordings(given, records)


class Made(NamedTuple):
    """What a training came to; `lineage` tells of the packs that it went on from, the oldest first."""

    config: EditingConfig
    records: list[EditRecord]
    course: Course
    verdict: Verdict
    report: PackReport
    wordings: tuple[Wordings, ...] = ()
    lineage: tuple[dict[str, Any], ...] = ()


def write_pack(base: EditablePlugIn, made: Made, root: Path, base_model: str, overwrite: bool) -> EditPack:
    """Write what a training came to as a pack; what was not learnt is said in the log."""
    missing = [outcome.id for outcome in made.report.edits if not outcome.learnt]
    if missing:
        _log.warning("not learnt: %s; train for more epochs, or see report.json", ", ".join(missing))
    manifest = PackManifest(
        format_version=FORMAT_VERSION,
        base_fingerprint=base.fingerprint,
        base_model=base_model,
        weight_token_id=base.weight_token_id,
        template=made.config.template,
        **describe_gate(made.verdict),
        training=_describe_training(made.config, made.course)
        | ({"lineage": list(made.lineage)} if made.lineage else {}),
        versions={name: metadata.version(name) for name in ("torch", "transformers", "tokenizers")}
        | {"onceedit-vllm": _own_version()},
    )
    return EditPack.write(
        root,
        manifest=manifest,
        edits=made.records,
        report=made.report,
        wordings=made.wordings,
        base_embeddings=base.base_embeddings,
        save_model=base.save,
        overwrite=overwrite,
    )


def describe_gate(verdict: Verdict) -> dict[str, Any]:
    """The manifest's fields about the thresholds."""
    with_subject, alone = verdict.thresholds
    return {
        "threshold": with_subject.threshold,
        "weight_threshold": alone.threshold,
        "threshold_reason": f"with a subject: {with_subject.reason}; [WEIGHT] alone: {alone.reason}",
    }


def _describe_training(config: EditingConfig, course: Course) -> dict[str, Any]:
    return config.model_dump(mode="json") | {
        "rounds": course.rounds,
        "steps": course.steps,
        "seconds": round(course.seconds, 1),
        "stopped_early": course.stopped_early,
        "computed_in": str(choose_compute_dtype(config.compute_dtype)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def _own_version() -> str:
    try:
        return metadata.version("onceedit-vllm")
    except metadata.PackageNotFoundError:
        return "not installed"
