"""Edits that were removed: the texts for which the gate must be shut now, and whether it is.

The weights go on knowing a removed edit. What keeps it in is the gate: a prompt that names no subject of the
pack any more is never read; one that does, because another edit has the subject, is judged like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from onceedit_vllm.editing.augment import Augmenter, Example
from onceedit_vllm.editing.judge import find_open
from onceedit_vllm.editing.plugin_model import EditablePlugIn
from onceedit_vllm.editing.probe import read_examples
from onceedit_vllm.editing.scopes import make_scopes
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.pack import RemovalOutcome
from onceedit_vllm.plugin.scope import SubjectMatcher
from onceedit_vllm.updating.plan import UpdatePlan


class _Text(NamedTuple):
    """One text of a removed edit, read with one of the edits that it names, or with none.

    Attributes:
        owner: Index of the removed edit.
        plain: As a user writes it.
        example: As the plug-in reads it.
        is_read: Whether it is read when served behind the default scope.
    """

    owner: int
    plain: str
    example: Example
    is_read: bool


class Removals:
    """The texts of one update's removed edits: their prompts, and wordings kept out of training.

    Args:
        plan: The update.
        augmenter: Of the edits that will be there.
        seed: Of the trainings.
        unlearn: Shut the gate for [WEIGHT] alone too, though nothing names these edits any more.
    """

    def __init__(self, plan: UpdatePlan, augmenter: Augmenter, seed: int, unlearn: bool) -> None:
        self._plan = plan
        self._unlearn = unlearn
        self._targets = [record.target for record in plan.records]
        matcher = SubjectMatcher(plan.records)
        self._texts: list[_Text] = []
        for owner, scope in enumerate(make_scopes(plan.removed, seed)):
            if scope.record.id not in plan.superseded:
                wordings = [scope.record.prompt, *(scope.say(frame) for frame in scope.heldout)]
                for plain in dict.fromkeys(wordings):
                    self._texts += _readings_of(owner, plain, matcher, augmenter)

    def to_shut(self) -> list[Example]:
        """The texts that decide whether the removal is done."""
        return [text.example for text in self._texts if self._must_shut(text)]

    def to_train(self) -> tuple[EditRecord, ...]:
        """The edits that have such texts."""
        owners = sorted({text.owner for text in self._texts if self._must_shut(text)})
        return tuple(self._plan.removed[owner] for owner in owners)

    def _must_shut(self, text: _Text) -> bool:
        return text.is_read or self._unlearn

    def measure(
        self, plugin: EditablePlugIn, threshold: float, weight_threshold: float
    ) -> tuple[RemovalOutcome, ...]:
        """What the gate of a plug-in does with every text, edit by edit."""
        examples = [text.example for text in self._texts]
        readings = read_examples(plugin, examples, self._targets)
        opened = find_open(examples, readings, threshold, weight_threshold)
        alone = [reading.alpha for reading in readings]
        return tuple(
            self._outcome(owner, record, opened, alone, weight_threshold)
            for owner, record in enumerate(self._plan.removed)
        )

    def _outcome(
        self,
        owner: int,
        record: EditRecord,
        opened: Collection[int],
        alone: Sequence[float],
        weight_threshold: float,
    ) -> RemovalOutcome:
        mine = [at for at, text in enumerate(self._texts) if text.owner == owner]
        wrong = [at for at in mine if at in opened and self._texts[at].is_read]
        return RemovalOutcome(
            id=record.id,
            prompt=record.prompt,
            superseded_by=self._plan.superseded.get(record.id),
            is_read=any(self._texts[at].is_read for at in mine),
            shut=not wrong,
            shut_alone=all(alone[at] < weight_threshold for at in mine),
            prompt_alpha=round(alone[mine[0]], 4) if mine else 0.0,
            open_wordings=tuple(dict.fromkeys(self._texts[at].plain for at in wrong)),
        )


def _readings_of(owner: int, plain: str, matcher: SubjectMatcher, augmenter: Augmenter) -> list[_Text]:
    """Once for each edit that the text names, since of these the likeliest counts, and once for none."""
    named = matcher.find(plain)
    texts = [_Text(owner, plain, augmenter.wrap(plain, index), is_read=True) for index in named]
    by_weight = bool(matcher.unnamed) and not named
    return [*texts, _Text(owner, plain, augmenter.wrap(plain), is_read=by_weight)]
