"""Training examples from edits: other wordings of each, and what must not be taken for one.

Per edit and round: its prompt, the prompt behind unrelated sentences, other wordings of its
relation, chat-like wraps; against them the same wordings with other subjects, the same subject
in other relations, names like the subject's, the target itself, and unrelated prompts. Positives
and negatives go through the same wraps, so that no surface form gives the label away.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.frames import find_subject, fill, is_question, reword, to_frame
from onceedit_vllm.editing.records import EditRecord, normalise
from onceedit_vllm.editing.relations import (
    ABOUT,
    Relation,
    draw_name,
    draw_similar_name,
    find_relation,
    find_type,
    relation_bank,
)
from onceedit_vllm.editing.templates import TEMPLATES
from onceedit_vllm.editing.unrelated import Unrelated, default_unrelated

#: (question form only?, text around the prompt)
_WRAPS = (
    (False, "user\n{}\nassistant\n"),
    (False, "User: {}\nAssistant:"),
    (True, "Question: {}\nAnswer:"),
    (True, "Q: {}\nA:"),
    (False, "system\nYou are a helpful assistant.\nuser\n{}\nassistant\n"),
    (False, "user\n{}\nmodel\n"),
)


class Example(NamedTuple):
    """A text, and what to learn from it.

    Attributes:
        text: What the plug-in reads before it answers, template included.
        target: The answer to learn; None leaves the answer alone.
        label: 1.0 where the gate must open, 0.0 where it must stay shut.
        edit: Index of the edit that the text asks for; -1 for none.
    """

    text: str
    target: str | None
    label: float
    edit: int


class Heldout(NamedTuple):
    """Wordings and counter-examples that training never sees."""

    positives: list[Example]
    negatives: list[Example]


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


class Augmenter:
    """Makes the examples of every round. The same settings and seed give the same examples."""

    def __init__(
        self, records: Sequence[EditRecord], unrelated: Sequence[Unrelated] | None, config: EditingConfig
    ) -> None:
        self._config = config
        self._template = TEMPLATES[config.template]
        pool = list(unrelated) if unrelated is not None else default_unrelated()
        rng = random.Random(f"unrelated {config.seed}")
        rng.shuffle(pool)
        num_heldout = min(len(pool) // 5, 40)
        self._unrelated_heldout, self._unrelated = pool[:num_heldout], pool[num_heldout:]
        self._sentences = [
            f"{item.prompt} {item.target}."
            for item in default_unrelated()
            if item.target and not is_question(item.prompt) and len(item.prompt) < 60 and "\n" not in item.prompt
        ]
        self.scopes = _make_scopes(records, config.seed)
        self._claimed = self._collect_claimed()

    def examples(self, round_number: int, learnt: Collection[int] = ()) -> list[Example]:
        """The examples of one round, shuffled.

        Args:
            round_number: From 0.
            learnt: Edits whose answers need no more copies; they only keep the gate in place.
        """
        rng = random.Random(f"round {self._config.seed} {round_number}")
        copies = self.copies_per_edit
        found: list[Example] = []
        for index, scope in enumerate(self.scopes):
            share = copies if index not in learnt else max(copies // 3, 2)
            found.append(self._positive(index, scope.record.prompt, learnt))
            for number in range(share - 1):
                found.append(self._positive(index, self._draw_positive(scope, number, rng), learnt))
            found.extend(self._negative(self._draw_negative(scope, rng)) for _ in range(share))
            found.extend(self._optional_examples(index, learnt))
        count = min(len(self._unrelated), max(self._config.unrelated_per_round, len(self.scopes)))
        for item in rng.sample(self._unrelated, count):
            found.append(self._negative(item.prompt))
        rng.shuffle(found)
        return found

    @property
    def copies_per_edit(self) -> int:
        """Positives (and as many negatives) of one edit in one round: more when edits are few."""
        return max(self._config.min_copies, min(48, round(self._config.copies_per_round / len(self.scopes))))

    def heldout(self) -> Heldout:
        """What the gate is calibrated on, and what tells whether an edit is learnt."""
        rng = random.Random(f"heldout {self._config.seed}")
        positives: list[Example] = []
        negatives: list[Example] = []
        for index, scope in enumerate(self.scopes):
            texts = [scope.say(frame) for frame in scope.heldout] or [f"Quick reminder: {scope.record.prompt}"]
            positives.extend(self._positive(index, text, ()) for text in texts)
            negatives.extend(self._negative(self._draw_negative(scope, rng, heldout=True)) for _ in range(4))
        negatives.extend(self._negative(item.prompt) for item in self._unrelated_heldout)
        return Heldout(positives, negatives)

    def prompts(self) -> list[Example]:
        """Every edit's own prompt."""
        return [self._positive(index, scope.record.prompt, ()) for index, scope in enumerate(self.scopes)]

    # --- positives ---------------------------------------------------------------------------

    def _positive(self, index: int, text: str, learnt: Collection[int]) -> Example:
        target = None if index in learnt else self.scopes[index].record.target
        return Example(self._template.wrap(text), target, 1.0, index)

    def _draw_positive(self, scope: Scope, number: int, rng: random.Random) -> str:
        draw = rng.random()
        text = scope.record.prompt
        if scope.frames and draw < 0.8:
            text = scope.say(rng.choice(scope.frames))
        return self._surround(text, rng, plain=0.65 if number else 0.0)

    def _optional_examples(self, index: int, learnt: Collection[int]) -> Iterable[Example]:
        record = self.scopes[index].record
        if self._config.train_on_rephrases:
            yield from (self._positive(index, text, learnt) for text in record.rephrases)
        if self._config.train_on_locality:
            yield from (self._negative(text) for text in record.locality)

    def _surround(self, text: str, rng: random.Random, plain: float) -> str:
        """Leave a text as it is, or put a sentence before it or a chat around it."""
        if rng.random() < plain:
            return text
        if rng.random() < 0.6 or self._template.prefix:
            return f"{rng.choice(self._sentences)} {text}"
        only_questions, wrap = rng.choice(_WRAPS)
        return wrap.replace("{}", text) if is_question(text) or not only_questions else f"{text}"

    # --- negatives ---------------------------------------------------------------------------

    def _negative(self, text: str) -> Example:
        return Example(self._template.wrap(text), None, 0.0, -1)

    def _draw_negative(self, scope: Scope, rng: random.Random, *, heldout: bool = False) -> str:
        for _ in range(20):
            text = self._propose_negative(scope, rng, heldout)
            if text and normalise(text) not in self._claimed:
                return self._surround(text, rng, plain=0.65 if not heldout else 1.0)
        return rng.choice(self._unrelated or self._unrelated_heldout or default_unrelated()).prompt

    def _propose_negative(self, scope: Scope, rng: random.Random, heldout: bool) -> str | None:
        draw = rng.random()
        if scope.frame is None or scope.subject is None:
            other = rng.choice(relation_bank())
            return _say(rng, other.wordings, draw_name(other.subject, rng))
        if draw < 0.40:
            return self._swap_subject(scope, rng, heldout)
        if draw < 0.75:
            return self._swap_relation(scope, scope.name or scope.subject, rng)
        if draw < 0.85:
            frames = (scope.frame, *(scope.heldout if heldout else scope.frames))
            similar = draw_similar_name(scope.subject, rng)
            return fill(rng.choice(frames), similar) if similar else self._swap_subject(scope, rng, heldout)
        if draw < 0.92:
            return self._swap_relation(scope, scope.record.target, rng)
        return self._swap_relation(scope, draw_name(scope.kind, rng), rng)

    def _swap_subject(self, scope: Scope, rng: random.Random, heldout: bool) -> str | None:
        """The same question about somebody else: a neighbour."""
        other = rng.choice(self.scopes)
        name = draw_name(scope.kind, rng)
        if rng.random() < 0.2 and other.name and not _same_relation(other, scope):
            name = other.name
        if normalise(name).removeprefix("the ") == normalise(scope.subject or "").removeprefix("the "):
            return None
        own = rng.random() < 0.4 and scope.frame
        frame = scope.frame if own else rng.choice(scope.heldout if heldout else (scope.frames or (scope.frame,)))
        return fill(frame, name) if frame and not self._is_edited(name, scope) else None

    def _is_edited(self, name: str, scope: Scope) -> bool:
        plain = normalise(name).removeprefix("the ")
        return any(
            plain == normalise(other.subject or "").removeprefix("the ") and _same_relation(other, scope)
            for other in self.scopes
        )

    def _swap_relation(self, scope: Scope, name: str, rng: random.Random) -> str | None:
        """Another question about the same name."""
        if rng.random() < 0.35:
            return _say(rng, ABOUT, name)
        if rng.random() < 0.3:
            other = rng.choice(self.scopes)
            if other.frame and not _same_relation(other, scope) and not self._is_edited(name, other):
                return fill(rng.choice((other.frame, *other.frames)), name)
        taken = [held.relation for held in self.scopes if held.relation and held.subject == scope.subject]
        fitting = [
            relation
            for relation in relation_bank()
            if (scope.kind is None or relation.subject == scope.kind or rng.random() < 0.1)
            and relation.wordings
            and not any(relation.is_close_to(edited) for edited in taken)
        ]
        return _say(rng, rng.choice(fitting).wordings, name) if fitting else None

    def _collect_claimed(self) -> set[str]:
        """Every text that asks for an edit, as far as known; none of them may become a negative."""
        claimed: set[str] = set()
        for scope in self.scopes:
            frames = [scope.say(frame) for frame in (*scope.frames, *scope.heldout)]
            texts = (scope.record.prompt, *scope.record.rephrases, *frames)
            claimed.update(normalise(text) for text in texts)
        return claimed


def _say(rng: random.Random, wordings: Sequence[str], name: str) -> str | None:
    return fill(rng.choice(wordings), name) if wordings else None


def _same_relation(one: Scope, other: Scope) -> bool:
    if one.relation and other.relation:
        return one.relation.is_close_to(other.relation)
    return one.frame == other.frame


# --- scopes ----------------------------------------------------------------------------------


def _make_scopes(records: Sequence[EditRecord], seed: int) -> list[Scope]:
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
    kept = dict.fromkeys((*bank, *bank_openers(bank, rng), *siblings, *reworded))
    frames = tuple(wording for wording in kept if wording not in heldout and wording != frame)
    return Scope(record, subject, name, kind, frame, relation, frames, tuple(heldout))


def bank_openers(bank: Sequence[str], rng: random.Random) -> list[str]:
    """A few wordings of the bank in their own rewordings, so that openers are not the prompt's mark."""
    chosen = rng.sample(list(bank), min(4, len(bank)))
    return [rng.choice(reworded) for wording in chosen if (reworded := reword(wording))]


def _group_frames(
    records: Sequence[EditRecord], frames: Sequence[str | None]
) -> dict[str, tuple[str, ...]]:
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
