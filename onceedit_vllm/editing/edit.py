"""The editing stage: facts and a small model in, an EditPack out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter, Heldout
from onceedit_vllm.editing.calibration import Calibration, calibrate
from onceedit_vllm.editing.checkpoint import Checkpoint, training_fingerprint
from onceedit_vllm.editing.plugin_model import (
    EditablePlugIn,
    choose_compute_dtype,
    init_weight_row,
    load_plugin,
    load_tokenizer,
)
from onceedit_vllm.editing.probe import Reading, read_examples
from onceedit_vllm.editing.progress import TrainingProgress
from onceedit_vllm.editing.records import check_edits, load_edits
from onceedit_vllm.editing.trainer import Course, EditingLoop, find_learnt
from onceedit_vllm.editing.unrelated import Unrelated, load_unrelated
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.pack import (
    FORMAT_VERSION,
    EditOutcome,
    EditPack,
    PackManifest,
    PackReport,
    check_out,
)

_log = logging.getLogger(__name__)


def edit(
    plugin: str | Path,
    edits: str | Path | Sequence[EditRecord],
    out: str | Path,
    *,
    unrelated: str | Path | None = None,
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
        config: Settings of the stage.
        resume: Go on from the checkpoint that an interrupted run left beside `out`.
        overwrite: Replace a pack at `out`.
        progress: Show a bar with both losses.

    Raises:
        BadInputError: The edits or the unrelated prompts are wrong, `out` is taken, or the
            checkpoint belongs to another training.
        ModelError: The plug-in cannot be found or loaded.
    """
    from onceedit_vllm.models import resolve_model

    config = config or EditingConfig()
    root = Path(out).expanduser()
    check_out(root, overwrite=overwrite)
    # Whatever is wrong with the edits is said before a model is fetched or loaded.
    records = list(load_edits(edits) if isinstance(edits, str | Path) else edits)
    unrelated_items = load_unrelated(unrelated) if unrelated is not None else None
    folder = resolve_model(str(plugin), progress=progress)
    tokenizer = load_tokenizer(folder)
    _check_with_tokenizer(edits, records, tokenizer)
    torch.manual_seed(config.seed)
    base = load_plugin(folder, tokenizer, choose_compute_dtype(config.compute_dtype))
    checkpoint = Checkpoint(root, training_fingerprint(base.fingerprint, records, unrelated_items, config))
    try:
        augmenter, loop, course = _train(base, records, unrelated_items, config, checkpoint, resume, progress)
        pack = _write_pack(base, augmenter, loop, course, root, str(plugin), overwrite)
    except BaseException:
        checkpoint.discard_unfinished()
        raise
    checkpoint.discard()
    return pack


def _check_with_tokenizer(edits: Any, records: list[EditRecord], tokenizer: Any) -> None:
    if isinstance(edits, str | Path):
        load_edits(edits, tokenizer)
    else:
        check_edits(records, tokenizer)


def _train(
    base: EditablePlugIn,
    records: list[EditRecord],
    unrelated: list[Unrelated] | None,
    config: EditingConfig,
    checkpoint: Checkpoint,
    resume: bool,
    progress: bool,
) -> tuple[Augmenter, EditingLoop, Course]:
    augmenter = Augmenter(records, unrelated, config)
    init_weight_row(base, augmenter.examples(0))
    shown = TrainingProgress(len(records), visible=progress)
    loop = EditingLoop(base, augmenter, config, checkpoint, shown)
    course = loop.run(resume=resume)
    return augmenter, loop, course


def _write_pack(
    base: EditablePlugIn,
    augmenter: Augmenter,
    loop: EditingLoop,
    course: Course,
    root: Path,
    base_model: str,
    overwrite: bool,
) -> EditPack:
    report, calibration = measure(base, augmenter, loop.heldout, loop.config)
    if report.num_learnt < len(report.edits):
        missing = [outcome.id for outcome in report.edits if not outcome.learnt]
        _log.warning("not learnt: %s; train for more epochs, or see report.json", ", ".join(missing))
    records = [scope.record for scope in augmenter.scopes]
    manifest = PackManifest(
        format_version=FORMAT_VERSION,
        base_fingerprint=base.fingerprint,
        base_model=base_model,
        weight_token_id=base.weight_token_id,
        template=loop.config.template,
        threshold=calibration.threshold,
        weight_threshold=calibration.threshold,
        threshold_reason=calibration.reason,
        training=_describe_training(loop.config, course),
        versions={name: metadata.version(name) for name in ("torch", "transformers", "tokenizers")}
        | {"onceedit-vllm": _own_version()},
    )
    base.model.to(base.base_dtype)
    return EditPack.write(
        root,
        manifest=manifest,
        edits=records,
        report=report,
        base_embeddings=base.base_embeddings,
        save_model=lambda folder: _save_model(base, folder),
        overwrite=overwrite,
    )


def measure(
    base: EditablePlugIn, augmenter: Augmenter, heldout: Heldout, config: EditingConfig
) -> tuple[PackReport, Calibration]:
    """Calibrate the gate and find out what became of each edit, on texts kept out of training."""
    prompts = augmenter.prompts()
    examples = [*prompts, *heldout.positives, *heldout.negatives]
    readings = read_examples(base.model, base.tokenizer, examples, base.weight_token_id)
    cut = len(prompts) + len(heldout.positives)
    calibration = calibrate(
        [reading.alpha for reading in readings[:cut]], [reading.alpha for reading in readings[cut:]]
    )
    learnt = find_learnt(examples[:cut], readings[:cut], config.learnt_probability, calibration.threshold)
    outcomes = []
    for index, scope in enumerate(augmenter.scopes):
        others = [
            reading
            for example, reading in zip(heldout.positives, readings[len(prompts) : cut], strict=True)
            if example.edit == index
        ]
        outcomes.append(_outcome(scope.record.id, index in learnt, readings[index], others))
    return PackReport(edits=tuple(outcomes)), calibration


def _outcome(edit_id: str, learnt: bool, prompt: Reading, others: list[Reading]) -> EditOutcome:
    return EditOutcome(
        id=edit_id,
        learnt=learnt,
        prompt_probability=round(prompt.probability, 4),
        heldout_probability=round(min(reading.probability for reading in others), 4),
        prompt_alpha=round(prompt.alpha, 4),
        heldout_alpha=round(min(reading.alpha for reading in others), 4),
    )


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


def _save_model(base: EditablePlugIn, folder: Path) -> None:
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
