"""Living packs: edits are added to a pack and removed from it, and another pack comes of it.

Adding trains the pack's own plug-in further: on the new edits, with the old ones replayed a few at a time;
old ones that are not learnt any more at a look are trained like new ones from then on. Removing costs no
training where nothing names the edit any more. Where something does (another edit of its subject, or edits
without a subject), and its prompt still opens the gate, it is trained as a counter-example.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from onceedit_vllm.config import ConflictPolicy, EditingConfig
from onceedit_vllm.editing.augment import Augmenter, Replay
from onceedit_vllm.editing.checkpoint import Checkpoint, training_fingerprint
from onceedit_vllm.editing.edit import Made, find_wordings, write_pack
from onceedit_vllm.editing.judge import Judge, Verdict
from onceedit_vllm.editing.plugin_model import (
    choose_compute_dtype,
    load_edited,
    load_tokenizer,
)
from onceedit_vllm.editing.progress import TrainingProgress
from onceedit_vllm.editing.records import place_edits
from onceedit_vllm.editing.trainer import Course, EditingLoop
from onceedit_vllm.editing.unrelated import Unrelated, load_unrelated
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.folders import sha256_of
from onceedit_vllm.pack import MANIFEST_FILE, EditPack, PackReport, RemovalOutcome, check_out
from onceedit_vllm.updating.plan import UpdatePlan, plan_update
from onceedit_vllm.updating.removal import Removals
from onceedit_vllm.wordings.file import join_aliases
from onceedit_vllm.wordings.wordings import Wordings

_log = logging.getLogger(__name__)


def update_pack(
    pack: EditPack | str | Path,
    out: str | Path,
    *,
    add: str | Path | Sequence[EditRecord] | None = None,
    remove: Sequence[str] = (),
    on_conflict: ConflictPolicy = "refuse",
    unlearn: bool = False,
    unrelated: str | Path | None = None,
    wordings: str | Path | Sequence[Wordings] = (),
    config: EditingConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> EditPack:
    """Write another pack with edits added and removed; the old one stays as it is.

    Args:
        pack: The pack to go on from.
        out: The new pack's folder.
        add: A file of edits, or records.
        remove: Ids of edits; they go before the new ones come.
        on_conflict: Of edits that ask the same, but want another answer (see the plan).
        unlearn: Train removed edits as counter-examples in any case, as `scope="weight"` needs.
        unrelated: A file of prompts that must stay untouched, instead of the built-in set.
        wordings: Of the edits to add; those of the others are the pack's.
        config: Settings of the stage; None: the pack's own. The template is the pack's in any case.
        resume: Go on from the checkpoint that an interrupted run left beside `out`.
        overwrite: Replace a pack at `out`.
        progress: Show a bar with both losses.

    Raises:
        BadInputError: The edits, the ids or the settings are wrong or in conflict, or `out` is taken.
        PackError: The pack is damaged.
        ModelError: Its plug-in cannot be loaded.
    """
    parent = pack if isinstance(pack, EditPack) else EditPack.load(pack)
    root = _check_place(parent, Path(out).expanduser(), overwrite)
    options = _Options(root, _check_settings(parent, config), unlearn, resume, overwrite, progress)
    return _prepare(parent, _Wish(add, tuple(remove), on_conflict, wordings, unrelated), options).run()


def settings_of(pack: EditPack) -> EditingConfig:
    """The settings that a pack was trained with, as far as it tells."""
    training = pack.manifest.training
    known = {name: training[name] for name in EditingConfig.model_fields if name in training}
    return EditingConfig.model_validate(known | {"template": pack.manifest.template})


@dataclass(frozen=True)
class _Options:
    root: Path
    config: EditingConfig
    unlearn: bool
    resume: bool
    overwrite: bool
    progress: bool
    unrelated: list[Unrelated] | None = None
    wordings: tuple[Wordings, ...] = ()


class _Wish(NamedTuple):
    """What the user asks for, unread."""

    add: str | Path | Sequence[EditRecord] | None
    remove: tuple[str, ...]
    on_conflict: ConflictPolicy
    wordings: str | Path | Sequence[Wordings]
    unrelated: str | Path | None


def _prepare(parent: EditPack, wish: _Wish, options: _Options) -> _Update:
    """Read and check all that is given, before a model is loaded."""
    new = _read_new(parent, wish)
    plan = plan_update(parent.edits, new.records, wish.remove, wish.on_conflict, options.config.seed)
    items = load_unrelated(wish.unrelated) if wish.unrelated is not None else None
    texts = _gather_wordings(parent, plan, new)
    return _Update(parent, plan, replace(options, unrelated=items, wordings=texts))


class _Update:
    """One update, from a plan to a pack."""

    def __init__(self, parent: EditPack, plan: UpdatePlan, options: _Options) -> None:
        """Say what was decided; load the pack's plug-in."""
        self._parent, self._plan, self._options = parent, plan, options
        self._started = time.monotonic()
        config = options.config
        self._shown = TrainingProgress(len(plan.records), visible=options.progress)
        for note in plan.notes:
            self._shown.say(f"{note}.")
        torch.manual_seed(config.seed)
        self._base = load_edited(parent, choose_compute_dtype(config.compute_dtype), config.trained_share)
        self._removals = Removals(plan, self._augmenter(Replay()), config.seed, options.unlearn)

    def _augmenter(self, replay: Replay) -> Augmenter:
        options = self._options
        return Augmenter(self._plan.records, options.unrelated, options.config, options.wordings, replay)

    def run(self) -> EditPack:
        """Train where it is needed, and write."""
        manifest = self._parent.manifest
        removed = self._removals.measure(self._base, manifest.threshold, manifest.weight_threshold)
        is_shut = all(each.shut and (each.shut_alone or not self._options.unlearn) for each in removed)
        if is_shut and not self._plan.added:
            return self._write_untrained(removed)
        checkpoint = Checkpoint(self._options.root, self._fingerprint())
        try:
            pack = self._train(checkpoint)
        except BaseException:
            checkpoint.discard_unfinished()
            raise
        checkpoint.discard()
        return pack

    def _fingerprint(self) -> str:
        plan, options = self._plan, self._options
        base = json.dumps([_sha_of(self._parent), [edit.id for edit in plan.removed], options.unlearn])
        return training_fingerprint(base, plan.records, options.unrelated, options.config, options.wordings)

    def _train(self, checkpoint: Checkpoint) -> EditPack:
        old = range(len(self._plan.kept))
        replay = Replay(frozenset(old), self._removals.to_train())
        augmenter, config = self._augmenter(replay), self._options.config
        judge = Judge(augmenter, config, self._removals.to_shut())
        known = {each.id for each in self._parent.report.edits if each.learnt}
        learnt = frozenset(index for index in old if self._plan.kept[index].id in known)
        loop = EditingLoop(self._base, augmenter, judge, config, checkpoint, self._shown, learnt)
        verdict = loop.run(resume=self._options.resume)
        return self._write_trained(loop.course, verdict, judge)

    def _write_trained(self, course: Course, verdict: Verdict, judge: Judge) -> EditPack:
        cuts = verdict.thresholds.with_subject.threshold, verdict.thresholds.alone.threshold
        removed = self._removals.measure(self._base, *cuts)
        self._warn(removed)
        report = judge.report(verdict).model_copy(update={"removed": removed})
        config, texts = self._options.config, self._options.wordings
        records, lineage = list(self._plan.records), self._lineage(course)
        made = Made(config, records, course, verdict, report, texts, lineage)
        base_model = self._parent.manifest.base_model
        return write_pack(self._base, made, self._options.root, base_model, self._options.overwrite)

    def _write_untrained(self, removed: tuple[RemovalOutcome, ...]) -> EditPack:
        """The plug-in stays as it is, and so does all that was measured of it."""
        outcomes = {each.id: each for each in self._parent.report.edits}
        kept = tuple(outcomes[edit.id] for edit in self._plan.kept)
        manifest = self._parent.manifest
        training = manifest.training | {"lineage": list(self._lineage(None))}
        return EditPack.write(
            self._options.root,
            manifest=manifest.model_copy(update={"training": training, "sizes": {}, "files": {}}),
            edits=self._plan.records,
            report=PackReport(edits=kept, removed=removed, gate=self._parent.report.gate),
            wordings=self._options.wordings,
            base_embeddings=self._parent.base_embeddings(),
            save_model=self._parent.copy_model,
            overwrite=self._options.overwrite,
        )

    def _lineage(self, course: Course | None) -> tuple[dict[str, Any], ...]:
        """What was done to come here, step by step; the last step is this update."""
        plan, records = self._plan, self._plan.records
        step: dict[str, Any] = {
            "parent": _sha_of(self._parent),
            "added": [edit.id for edit in plan.added],
            "removed": [edit.id for edit in plan.removed],
            "superseded": plan.superseded,
            "rounds": course.rounds if course else 0,
            "steps": course.steps if course else 0,
            "requeued": [records[index].id for index in sorted(course.requeued)] if course else [],
            "seconds": round(time.monotonic() - self._started, 1),
        }
        return (*self._parent.manifest.training.get("lineage", ()), step)

    def _warn(self, removed: Sequence[RemovalOutcome]) -> None:
        for each in removed:
            if not each.shut:
                _log.warning(
                    "removed edit %s: %s still opens the gate; train for more epochs, or see report.json",
                    each.id,
                    ", ".join(map(repr, each.open_wordings)),
                )


class _New(NamedTuple):
    """What is to be added."""

    records: list[EditRecord]
    wordings: tuple[Wordings, ...]


def _read_new(parent: EditPack, wish: _Wish) -> _New:
    if wish.add is None:
        if not wish.remove:
            raise BadInputError("there is nothing to do: give edits to add, ids of edits to remove, or both")
        if wish.wordings:
            raise BadInputError("wordings are for edits that are added; give those too")
        return _New([], ())
    placed = place_edits(wish.add)
    texts = find_wordings(wish.wordings, placed.records)
    placed.check_targets(load_tokenizer(parent.model_dir))
    return _New(join_aliases(placed.records, texts), texts)


def _gather_wordings(parent: EditPack, plan: UpdatePlan, new: _New) -> tuple[Wordings, ...]:
    """Those of the edits that stay and of those that come, by the ids that they will have."""
    staying = {edit.id for edit in plan.kept}
    kept = [line for line in parent.wordings if line.id in staying]
    given = {line.id: line for line in new.wordings}
    written = {_key_of(edit): given[edit.id] for edit in new.records if edit.id in given}
    came = [(edit, written.get(_key_of(edit))) for edit in plan.added]
    return (*kept, *(line.model_copy(update={"id": edit.id}) for edit, line in came if line is not None))


def _key_of(edit: EditRecord) -> tuple[str, str]:
    """What an edit is known by whatever its id."""
    return edit.prompt, edit.target


def _check_place(parent: EditPack, root: Path, overwrite: bool) -> Path:
    if root.resolve() == parent.root:
        raise BadInputError(
            f"{root}: is the pack itself; write the new one elsewhere, so that there is a way back"
        )
    check_out(root, overwrite=overwrite)
    return root


def _check_settings(parent: EditPack, config: EditingConfig | None) -> EditingConfig:
    if config is None:
        return settings_of(parent)
    wanted = parent.manifest.template
    if config.template != wanted:
        raise BadInputError(
            f"{parent.root}: its plug-in reads prompts in the template {wanted!r}, not {config.template!r}; "
            "leave the template as it is, or edit the base model anew"
        )
    return config


def _sha_of(pack: EditPack) -> str:
    return sha256_of(pack.root / MANIFEST_FILE)
