"""What augmentation knows about each edit: its subject, its relation, and other wordings of it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from onceedit_vllm.editing.frames import fill, find_subject, to_frame
from onceedit_vllm.editing.relations import Relation, find_relation, find_type
from onceedit_vllm.editing.reword import reword
from onceedit_vllm.edits import EditRecord, normalise


class Scope(NamedTuple):
    """An edit as augmentation sees it.

    Attributes:
        record: The edit.
        subject: As written in the prompt; None where none was found.
        name: The subject with its article, for wordings of the bank.
        kind: The subject's type, where known.
        frame: The prompt without its subject.
        relation: Of the bank, where recognised.
        frames: Other wordings, as frames, for training.
        heldout: Other wordings, as frames, for calibration only.
    """

    record: EditRecord
    subject: str | None
    name: str | None
    kind: str | None
    frame: str | None
    relation: Relation | None
    frames: tuple[str, ...]
    heldout: tuple[str, ...]

    def say(self, frame: str) -> str:
        """Fill a frame with this edit's subject."""
        from_prompt = "the {}" in frame.lower() or self.name is None
        return fill(frame, (self.subject if from_prompt else self.name) or "")


def same_relation(one: Scope, other: Scope) -> bool:
    """Whether the two edits ask the same of their subjects, as far as can be told."""
    if one.relation and other.relation:
        return one.relation.is_close_to(other.relation)
    return one.frame == other.frame


def make_scopes(records: Sequence[EditRecord], seed: int) -> list[Scope]:
    """Find the subject, relation and other wordings of every edit of a file."""
    found = [(record, find_subject(record)) for record in records]
    frames = [to_frame(record.prompt, subject) for record, subject in found]
    siblings = _group_frames([record for record, _ in found], frames)
    return [
        _make_scope(record, subject, frame, siblings.get(frame or "", ()), seed)
        for (record, subject), frame in zip(found, frames, strict=True)
    ]


def _make_scope(
    record: EditRecord, subject: str | None, frame: str | None, siblings: Sequence[str], seed: int
) -> Scope:
    if frame is None or subject is None:
        return Scope(record, None, None, None, None, None, (), ())
    relation = find_relation(frame)
    name = f"the {subject}" if "the {}" in frame.lower() else subject
    kind = find_type(subject) or (relation.subject if relation else None)
    bank = [wording for wording in (relation.wordings if relation else ()) if wording != frame]
    reworded = reword(frame)
    rng = random.Random(f"scope {seed} {record.id}")
    heldout = [rng.choice(group) for group in (bank, bank, reworded) if len(group) >= 4]
    heldout = list(dict.fromkeys(heldout))
    kept = dict.fromkeys((*bank, *_reword_some(bank, rng), *siblings, *reworded))
    frames = tuple(wording for wording in kept if wording not in heldout and wording != frame)
    return Scope(record, subject, name, kind, frame, relation, frames, tuple(heldout))


def _reword_some(bank: Sequence[str], rng: random.Random) -> list[str]:
    """A few wordings of the bank in their own rewordings, so that openers are not the prompt's mark."""
    chosen = rng.sample(list(bank), min(4, len(bank)))
    return [rng.choice(reworded) for wording in chosen if (reworded := reword(wording))]


def _group_frames(records: Sequence[EditRecord], frames: Sequence[str | None]) -> dict[str, tuple[str, ...]]:
    """Frames of the file that say the same relation: same bank relation, or the same answers.

    Two frames share a relation when at least two answers, and a third of the smaller set of
    answers, are common to both.
    """
    answers: dict[str, set[str]] = defaultdict(set)
    for record, frame in zip(records, frames, strict=True):
        if frame is not None:
            answers[frame].add(normalise(record.target))
    groups: dict[str, tuple[str, ...]] = {}
    for frame, mine in answers.items():
        relation = find_relation(frame)
        groups[frame] = tuple(
            other
            for other, theirs in answers.items()
            if other != frame and _frames_match(relation, mine, find_relation(other), theirs)
        )
    return groups


def _frames_match(one: Relation | None, mine: set[str], two: Relation | None, theirs: set[str]) -> bool:
    if one is not None and two is not None:
        return one.name == two.name and bool(one.wordings)
    shared = len(mine & theirs)
    return shared >= 2 and shared * 3 >= min(len(mine), len(theirs))
