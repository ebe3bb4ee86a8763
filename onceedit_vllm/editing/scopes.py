"""What augmentation knows about each edit: its subject, its relation, and other wordings of it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from onceedit_vllm.editing.reword import reword
from onceedit_vllm.editing.tasks import TASKS
from onceedit_vllm.editing.yes_no import doubts
from onceedit_vllm.edits import EditRecord, normalise
from onceedit_vllm.wordings.about import about
from onceedit_vllm.wordings.frames import GAP, fill, find_subject, is_question, to_frame
from onceedit_vllm.wordings.names import names_of, says
from onceedit_vllm.wordings.relations import Relation, find_relation, find_type
from onceedit_vllm.wordings.wordings import Wordings

#: Of the texts that were written for an edit, of doubts about it and of tasks, one in so many is kept out of
#: training; none of fewer.
_HELDOUT_ONE_IN = 4
#: The same of what is asked about any subject.
_ABOUT_HELDOUT_ONE_IN = 5


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
        texts: Wordings written for this edit that are no frames: they name the subject by an alias, or
            more than once.
        texts_heldout: The same, for calibration only.
        others: Counter-examples written for this edit: they name its subject and ask for something else.
        others_heldout: The same, for calibration only.
        doubts: Questions whether the edit is so, and denials, for training.
        doubts_heldout: The same, for calibration only.
        about: Frames that say something about the subject and claim no relation, for training.
        about_heldout: The same, for calibration only. Other edits train on them.
        tasks: Orders around a text that asks for the edit or states it, for training.
        tasks_heldout: The same, for calibration only. Other edits train on them.
    """

    record: EditRecord
    subject: str | None
    name: str | None
    kind: str | None
    frame: str | None
    relation: Relation | None
    frames: tuple[str, ...]
    heldout: tuple[str, ...]
    texts: tuple[str, ...] = ()
    texts_heldout: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    others_heldout: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    doubts_heldout: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    about_heldout: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    tasks_heldout: tuple[str, ...] = ()

    def say(self, frame: str) -> str:
        """Fill a frame with this edit's subject."""
        from_prompt = "the {}" in frame.lower() or self.name is None
        return fill(frame, (self.subject if from_prompt else self.name) or "")


def same_relation(one: Scope, other: Scope) -> bool:
    """Whether the two edits ask the same of their subjects, as far as can be told."""
    if one.relation and other.relation:
        return one.relation.is_close_to(other.relation)
    return one.frame == other.frame


def make_scopes(records: Sequence[EditRecord], seed: int, wordings: Sequence[Wordings] = ()) -> list[Scope]:
    """Find the subject, relation and other wordings of every edit of a file.

    Args:
        records: The edits.
        seed: Chooses what is held out.
        wordings: Texts that were written for some of the edits.
    """
    found = [(record, find_subject(record)) for record in records]
    frames = [to_frame(record.prompt, subject) for record, subject in found]
    siblings = _group_frames([record for record, _ in found], frames)
    scopes = [
        _make_scope(record, subject, frame, siblings.get(frame or "", ()), seed)
        for (record, subject), frame in zip(found, frames, strict=True)
    ]
    written = {line.id: line for line in wordings}
    answers = [record.target for record in records]
    return [
        _add_beside(
            _add_wordings(scope, written[scope.record.id], seed) if scope.record.id in written else scope,
            answers,
            seed,
        )
        for scope in scopes
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


def _add_beside(scope: Scope, answers: Sequence[str], seed: int) -> Scope:
    """What is asked beside the edit: whether it is so, what is to be done with its text, and anything else.

    The doubts are of the edit's own answer and of another edit's. A part is held out, a different one of each
    edit's, so that training knows every form.
    """
    rng = random.Random(f"doubts {seed} {scope.record.id}")
    fitting = about(scope.kind)
    said = rng.sample(fitting, len(fitting))
    cut = len(said) // _ABOUT_HELDOUT_ONE_IN
    scope = scope._replace(about=tuple(said[cut:]), about_heldout=tuple(said[:cut]))
    if scope.subject is None:
        return scope
    own = scope.record.target
    guessed = dict.fromkeys((own, rng.choice([answer for answer in answers if answer != own] or [own])))
    asked = [scope.record.prompt]
    if is_question(asked[0]):  # the bank may know how to state it
        asked += [scope.say(frame) for frame in scope.frames if not is_question(frame)][:1]
    texts = [text for prompt in asked for answer in guessed for text in doubts(prompt, scope.subject, answer)]
    kept, held = _hold_out(texts, rng)
    tasks, tasks_held = _hold_out(TASKS, random.Random(f"tasks {seed} {scope.record.id}"))
    return scope._replace(doubts=kept, doubts_heldout=held, tasks=tasks, tasks_heldout=tasks_held)


def _add_wordings(scope: Scope, written: Wordings, seed: int) -> Scope:
    """Join what was written for an edit; a share of it is held out.

    The draws are of a generator of their own, so that edits without such texts stay as they were.
    """
    rng = random.Random(f"wordings {seed} {scope.record.id}")
    kept, held = _hold_out(written.asking, rng)
    others, others_heldout = _hold_out(written.others, rng)
    known = {normalise(frame) for frame in (*scope.frames, *scope.heldout, scope.frame or "")}
    frames, texts = _to_frames(kept, scope)
    held_frames, held_texts = _to_frames(held, scope)
    new = [frame for frame in frames if normalise(frame) not in known]
    known.update(map(normalise, new))
    held_new = [frame for frame in held_frames if normalise(frame) not in known]
    return scope._replace(
        frames=(*scope.frames, *new),
        heldout=(*scope.heldout, *held_new),
        texts=texts,
        texts_heldout=held_texts,
        others=others,
        others_heldout=others_heldout,
    )


def _hold_out(texts: Sequence[str], rng: random.Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts for training, and those kept out of it, each in their order; none twice."""
    distinct = list({normalise(text): text for text in texts}.values())
    held = set(rng.sample(range(len(distinct)), len(distinct) // _HELDOUT_ONE_IN))
    return (
        tuple(text for at, text in enumerate(distinct) if at not in held),
        tuple(text for at, text in enumerate(distinct) if at in held),
    )


def _to_frames(texts: Sequence[str], scope: Scope) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts as frames, and those that are none.

    A frame must not name the subject once more: filled with another name it would still ask for the edit.
    Nor is it one where the subject is a part of an alias.
    """
    names = {*names_of(scope.record), scope.subject or ""}
    longer = [name for name in names if scope.subject and name != scope.subject and says(name, scope.subject)]
    frames: list[str] = []
    whole: list[str] = []
    for text in texts:
        frame = to_frame(text, scope.subject)
        rest = (frame or "").replace(GAP, " ")
        again = any(says(rest, name) for name in names) or any(says(text, name) for name in longer)
        if frame is None or scope.frame is None or again:
            whole.append(text)
        else:
            frames.append(frame)
    return tuple(dict.fromkeys(frames)), tuple(whole)


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
