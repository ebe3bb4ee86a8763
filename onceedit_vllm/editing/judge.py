"""What became of each edit, and the gate's thresholds, measured on texts kept out of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter, Example, Heldout
from onceedit_vllm.editing.calibration import Strata, Thresholds, calibrate, gate_rates
from onceedit_vllm.editing.plugin_model import EditablePlugIn
from onceedit_vllm.editing.probe import Reading, read_examples
from onceedit_vllm.pack import EditOutcome, PackReport

#: Alphas beyond which the gate is sure enough for the training to end early.
OPEN, SHUT = 0.8, 0.2


class Verdict(NamedTuple):
    """One look at a plug-in.

    Attributes:
        prompts: One reading for each edit's own prompt.
        heldout: The readings of each edit's held-out wordings.
        strata: The readings that the gate was calibrated on.
        thresholds: The gate's.
        learnt: Edits whose prompt, and at least half of whose other wordings, are right.
        removed_open: Texts that ask for edits which are none any more, and open the gate all the same.
    """

    prompts: list[Reading]
    heldout: list[list[Reading]]
    strata: Strata
    thresholds: Thresholds
    learnt: frozenset[int]
    removed_open: frozenset[int] = frozenset()

    @property
    def is_done(self) -> bool:
        """All edits are learnt, and the gate is sure: there is nothing left to train."""
        texts = [reading for edit in self.heldout for reading in edit]
        missed = sum(not (reading.greedy and reading.evidence >= OPEN) for reading in texts)
        negatives = (*self.strata.same_subject, *self.strata.others)
        opened = sum(reading.evidence > SHUT for reading in negatives)
        few = missed <= 0.05 * len(texts) and opened <= 0.02 * len(negatives)
        return few and len(self.learnt) == len(self.prompts) and not self.removed_open


class Judge:
    """Reads the same prompts and held-out texts whenever it is asked."""

    def __init__(self, augmenter: Augmenter, config: EditingConfig, removed: Sequence[Example] = ()) -> None:
        """Draw the held-out texts; `removed` ask for edits which are none any more."""
        self._removed = tuple(removed)
        self._sure = config.learnt_probability
        self._prompts = augmenter.prompts()
        self._heldout: Heldout = augmenter.heldout()
        self._ids = [scope.record.id for scope in augmenter.scopes]
        self._targets = [scope.record.target for scope in augmenter.scopes]

    def look(self, plugin: EditablePlugIn) -> Verdict:
        """Measure a plug-in as it is now."""
        parts: tuple[Sequence[Example], ...] = (self._prompts, *self._heldout, self._removed)
        texts = [example for part in parts for example in part]
        readings = iter(read_examples(plugin, texts, self._targets))
        *read, removed = ([next(readings) for _ in part] for part in parts)
        return self.decide(Strata(*read), removed)

    def decide(
        self, strata: Strata, removed: Sequence[Reading] = (), most_false: float | None = None
    ) -> Verdict:
        """Choose the thresholds and tell what they make of each edit.

        Args:
            strata: Readings, of a look or with the user's beside them.
            removed: Of the texts that ask for edits which are none any more.
            most_false: See :func:`~onceedit_vllm.editing.calibration.calibrate`.

        Raises:
            BadInputError: No threshold keeps `most_false`.
        """
        prompts = strata.edits
        by_edit: list[list[Reading]] = [[] for _ in prompts]
        for example, reading in zip(self._heldout.positives, strata.wordings, strict=True):
            by_edit[example.edit].append(reading)
        thresholds = calibrate(strata, most_false)
        learnt = frozenset(
            index
            for index, (prompt, wordings) in enumerate(zip(prompts, by_edit, strict=True))
            if self._is_learnt(prompt, wordings, thresholds.with_subject.threshold)
        )
        cuts = thresholds.with_subject.threshold, thresholds.alone.threshold
        opened = find_open(self._removed, removed, *cuts)
        return Verdict(list(prompts), by_edit, strata, thresholds, learnt, opened)

    def report(self, verdict: Verdict) -> PackReport:
        """The outcomes in the order of the edits."""
        outcomes = [
            EditOutcome(
                id=edit_id,
                learnt=index in verdict.learnt,
                prompt_probability=round(verdict.prompts[index].probability, 4),
                heldout_probability=round(min(r.probability for r in verdict.heldout[index]), 4),
                prompt_alpha=round(verdict.prompts[index].evidence, 4),
                heldout_alpha=round(min(r.evidence for r in verdict.heldout[index]), 4),
            )
            for index, edit_id in enumerate(self._ids)
        ]
        return PackReport(edits=tuple(outcomes), gate=gate_rates(verdict.strata, verdict.thresholds))

    def _is_learnt(self, prompt: Reading, wordings: Sequence[Reading], threshold: float) -> bool:
        """The prompt must reach the full probability, the other wordings half of it."""
        right = [_is_right(reading, self._sure / 2, threshold) for reading in wordings]
        return _is_right(prompt, self._sure, threshold) and 2 * sum(right) >= len(right)


def find_open(
    texts: Sequence[Example], readings: Sequence[Reading], threshold: float, weight_threshold: float
) -> frozenset[int]:
    """Indices of the texts that open the gate: by the evidence where they name an edit, else by alpha."""
    return frozenset(
        index
        for index, (text, reading) in enumerate(zip(texts, readings, strict=True))
        if reading.evidence >= (threshold if text.edit >= 0 else weight_threshold)
    )


def _is_right(reading: Reading, probability: float, threshold: float) -> bool:
    return reading.greedy and reading.probability >= probability and reading.evidence >= threshold
