"""A pack's gate calibrated anew: other thresholds, from the user's own prompts too, without any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from onceedit_vllm.editing.augment import Augmenter
from onceedit_vllm.editing.calibration import Strata
from onceedit_vllm.editing.edit import describe_gate
from onceedit_vllm.editing.judge import Judge, Verdict
from onceedit_vllm.editing.plugin_model import choose_compute_dtype, load_edited
from onceedit_vllm.editing.probe import Reading, read_examples
from onceedit_vllm.editing.unrelated import Unrelated, load_unrelated
from onceedit_vllm.edits import normalise
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.pack import EditPack, RemovalOutcome, check_out
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.scope import SubjectMatcher
from onceedit_vllm.updating.update import settings_of


class Judged(NamedTuple):
    """What the gate does with one of the user's prompts.

    Attributes:
        prompt: As given.
        asks: It is said to ask for an edit.
        named: Ids of the edits whose subject it names, in a sentence that may be asking for them.
        alpha: What the threshold is compared with: the evidence for the named edits, or [WEIGHT] alone.
        was_open: With the old thresholds, behind the default scope.
        is_open: With the new ones.
    """

    prompt: str
    asks: bool
    named: tuple[str, ...]
    alpha: float
    was_open: bool
    is_open: bool


class Recalibrated(NamedTuple):
    """The new pack, the old one's manifest, and the user's prompts, the ones most wrong first."""

    pack: EditPack
    before: tuple[float, float]
    prompts: tuple[Judged, ...]


class _Prompt(NamedTuple):
    text: str
    asks: bool
    named: tuple[int, ...]


def recalibrate(
    pack: EditPack | str | Path,
    out: str | Path | None,
    *,
    positives: str | Path | None = None,
    negatives: str | Path | None = None,
    most_false: float | None = None,
    unrelated: str | Path | None = None,
    overwrite: bool = False,
) -> Recalibrated:
    """Choose a pack's thresholds anew; its plug-in stays as it is, to the byte.

    The texts are those that a training calibrates on, of the pack's own seed, and the user's. A prompt of
    the user's counts for the threshold that it meets: with a subject named, or without.

    Args:
        pack: The pack.
        out: Where the new one is written; None: in the place of the old one, in one step.
        positives: A file of prompts that ask for an edit: text, one a line, or JSONL with `prompt`.
        negatives: A file of prompts that do not.
        most_false: See :func:`~onceedit_vllm.editing.calibration.calibrate`.
        unrelated: The file that the pack was trained with, in place of the built-in set.
        overwrite: Replace a pack at `out`.

    Raises:
        BadInputError: A file cannot be read or used, a prompt is in both, no threshold keeps `most_false`, or
            `out` is taken.
        PackError: The pack is damaged.
        ModelError: Its plug-in cannot be loaded.
    """
    parent = pack if isinstance(pack, EditPack) else EditPack.load(pack)
    root = parent.root if out is None else Path(out).expanduser()
    overwrite = overwrite or out is None
    check_out(root, overwrite=overwrite)
    doubts = Doubts(parent.edits, SubjectMatcher(parent.edits))
    prompts = _read_prompts(positives, negatives, doubts)
    items = load_unrelated(unrelated) if unrelated is not None else None
    return _Recalibration(parent, doubts, prompts, items).run(root, overwrite, most_false)


class _Recalibration:
    """One calibration, from a pack and prompts to another pack."""

    def __init__(
        self,
        parent: EditPack,
        doubts: Doubts,
        prompts: list[_Prompt],
        unrelated: list[Unrelated] | None,
    ) -> None:
        """Load the pack's plug-in."""
        self._parent, self._doubts, self._prompts = parent, doubts, prompts
        config = settings_of(parent)
        self._augmenter = Augmenter(parent.edits, unrelated, config, parent.wordings)
        self._judge = Judge(self._augmenter, config)
        self._plugin = load_edited(parent, choose_compute_dtype(config.compute_dtype), config.trained_share)

    def run(self, root: Path, overwrite: bool, most_false: float | None) -> Recalibrated:
        """Read all texts, choose, and write."""
        read = self._read([(each.text, each.named) for each in self._prompts])
        strata = self._join(self._judge.look(self._plugin).strata, read)
        verdict = self._judge.decide(strata, most_false=most_false)
        removed = tuple(self._look_again(verdict))
        report = self._judge.report(verdict).model_copy(update={"removed": removed})
        manifest = self._parent.manifest
        made = EditPack.write(
            root,
            manifest=manifest.model_copy(update=describe_gate(verdict) | {"sizes": {}, "files": {}}),
            edits=self._parent.edits,
            report=report,
            wordings=self._parent.wordings,
            base_embeddings=self._parent.base_embeddings(),
            save_model=self._parent.copy_model,
            overwrite=overwrite,
        )
        before = manifest.threshold, manifest.weight_threshold
        return Recalibrated(made, before, self._compare(read, before, made))

    def _join(self, strata: Strata, read: Sequence[Reading]) -> Strata:
        """The readings of the user's prompts beside the others; one that asks and names nothing is none."""
        placed = list(zip(self._prompts, read, strict=True))
        return strata._replace(
            asked=[reading for each, reading in placed if each.asks and each.named],
            named=[reading for each, reading in placed if not each.asks and each.named],
            unnamed=[reading for each, reading in placed if not each.asks and not each.named],
        )

    def _read(self, texts: Sequence[tuple[str, tuple[int, ...]]]) -> list[Reading]:
        """A reading a text: of the edits that it names the likeliest counts."""
        wrap, targets = self._augmenter.wrap, [edit.target for edit in self._parent.edits]
        examples = [wrap(text, edit) for text, named in texts for edit in (named or (-1,))]
        readings = iter(read_examples(self._plugin, examples, targets))
        each = [[next(readings) for _ in (named or (-1,))] for _, named in texts]
        return [max(found, key=lambda reading: reading.evidence) for found in each]

    def _compare(
        self, read: Sequence[Reading], before: tuple[float, float], made: EditPack
    ) -> tuple[Judged, ...]:
        after = made.manifest.threshold, made.manifest.weight_threshold
        found = []
        for prompt, reading in zip(self._prompts, read, strict=True):
            was_open, is_open = (self._is_open(reading, prompt.named, cuts) for cuts in (before, after))
            names = tuple(made.edits[index].id for index in prompt.named)
            alpha = round(reading.evidence if names else reading.alpha, 4)
            found.append(Judged(prompt.text, prompt.asks, names, alpha, was_open, is_open))
        return tuple(sorted(found, key=_how_right))

    def _is_open(self, reading: Reading, named: tuple[int, ...], cuts: tuple[float, float]) -> bool:
        """Behind the default scope, with these thresholds."""
        if named:
            return reading.evidence >= cuts[0]
        return bool(self._doubts.matcher.unnamed) and reading.alpha >= cuts[1]

    def _look_again(self, verdict: Verdict) -> Iterator[RemovalOutcome]:
        """With other thresholds a removed edit may be in again, or out at last."""
        cuts = verdict.thresholds.with_subject.threshold, verdict.thresholds.alone.threshold
        for outcome in self._parent.report.removed:
            texts = [(text, self._doubts.asked(text)) for text in (outcome.prompt, *outcome.open_wordings)]
            read = self._read(texts)
            opened = tuple(
                text
                for (text, named), reading in zip(texts, read, strict=True)
                if self._is_open(reading, named, cuts)
            )
            alone = all(reading.alpha < cuts[1] for reading in read)
            yield outcome.model_copy(
                update={"shut": not opened, "shut_alone": alone, "open_wordings": opened}
            )


def _how_right(judged: Judged) -> tuple[bool, float]:
    return judged.asks == judged.is_open, judged.alpha if judged.asks else -judged.alpha


# --- the user's prompts ----------------------------------------------------------------------


def _read_prompts(
    positives: str | Path | None, negatives: str | Path | None, doubts: Doubts
) -> list[_Prompt]:
    asking, others = (
        list(dict.fromkeys(item.prompt for item in load_unrelated(file))) if file is not None else []
        for file in (positives, negatives)
    )
    both = {normalise(text) for text in asking} & {normalise(text) for text in others}
    if both:
        shown = ", ".join(map(repr, sorted(both)[:3]))
        raise BadInputError(f"{positives}, {negatives}: {shown} cannot both ask for an edit and not; choose")
    texts = [(text, True) for text in asking] + [(text, False) for text in others]
    return [_Prompt(text, asks, doubts.asked(text)) for text, asks in texts]
