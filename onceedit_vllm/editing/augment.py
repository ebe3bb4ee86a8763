"""Training examples from edits: other wordings of each, and what must not be taken for one.

Per edit and round: its prompt, the prompt behind unrelated sentences, other wordings of its
relation, chat-like wraps; against them the same wordings with other subjects, the same subject
in other relations, names like the subject's, the target itself, and unrelated prompts. Positives
and negatives go through the same wraps, so that no surface form gives the label away.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import NamedTuple

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.frames import fill, is_question
from onceedit_vllm.editing.relations import ABOUT, draw_name, draw_similar_name, relation_bank
from onceedit_vllm.editing.reword import add_opener
from onceedit_vllm.editing.scopes import Scope, make_scopes, same_relation
from onceedit_vllm.editing.unrelated import Unrelated, default_unrelated
from onceedit_vllm.edits import TEMPLATES, EditRecord, normalise

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
            if item.target and not is_question(item.prompt) and "\n" not in item.prompt
        ]
        self.scopes = make_scopes(records, config.seed)
        self._claimed = self._collect_claimed()

    def examples(self, round_number: int, learnt: Collection[int] = ()) -> list[Example]:
        """The examples of one round, shuffled.

        Args:
            round_number: From 0.
            learnt: Edits that are learnt, answer and gate: they get half the copies, all of which
                keep their answers, so that the gate is never trained without them.
        """
        rng = random.Random(f"round {self._config.seed} {round_number}")
        found: list[Example] = []
        for index, scope in enumerate(self.scopes):
            copies = self.copies_per_edit if index not in learnt else -(-self.copies_per_edit // 2)
            positives, neighbours = self._draw_pairs(scope, copies, rng)
            positives += scope.record.rephrases if self._config.train_on_rephrases else ()
            found += [self._positive(index, text) for text in positives]
            others = [self._draw_negative(scope, rng) for _ in range(copies - len(neighbours) // 2)]
            found += [self._negative(text) for text in (*neighbours, *others)]
            if self._config.train_on_locality:
                found += [self._negative(text) for text in scope.record.locality]
        count = min(len(self._unrelated), max(self._config.unrelated_per_round, len(self.scopes)))
        found += [self._negative(item.prompt) for item in rng.sample(self._unrelated, count)]
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
            texts = [scope.say(frame) for frame in scope.heldout]
            texts = texts or [f"Quick reminder: {scope.record.prompt}"]
            positives.extend(self._positive(index, text) for text in texts)
            negatives.extend(self._negative(self._draw_negative(scope, rng, heldout=True)) for _ in range(4))
        negatives.extend(self._negative(item.prompt) for item in self._unrelated_heldout)
        return Heldout(positives, negatives)

    def prompts(self) -> list[Example]:
        """Every edit's own prompt."""
        return [self._positive(index, scope.record.prompt) for index, scope in enumerate(self.scopes)]

    # --- positives ---------------------------------------------------------------------------

    def _positive(self, index: int, text: str) -> Example:
        return Example(self._template.wrap(text), self.scopes[index].record.target, 1.0, index)

    def _draw_pairs(self, scope: Scope, copies: int, rng: random.Random) -> tuple[list[str], list[str]]:
        """Texts that ask for the edit, and for most of them the same text about somebody else.

        Only the subject tells the two apart, so the gate has to look at it. The prompt itself comes
        first, as it is.
        """
        positives, neighbours = [scope.record.prompt], []
        for number in range(copies):
            frame = scope.frame
            if scope.frames and number and rng.random() < 0.85:
                frame = rng.choice(scope.frames)
            text = scope.say(frame) if frame else scope.record.prompt
            how = rng.random()
            if number:
                positives.append(self._surround(text, random.Random(how)))
            neighbour = self._swap_subject(scope, frame, rng)
            if neighbour and normalise(neighbour) not in self._claimed:
                neighbours.append(self._surround(neighbour, random.Random(how), plain=0.6 if number else 1.0))
        return positives, neighbours

    def _surround(self, text: str, rng: random.Random, plain: float = 0.6) -> str:
        """Leave a text as it is, or put an opener or a sentence before it or a chat around it."""
        if rng.random() < plain:
            return text
        draw = rng.random()
        if draw < 0.1:
            return text.lower()
        if draw < 0.4:
            return add_opener(text, rng)
        if draw < 0.75 or self._template.prefix:
            return f"{rng.choice(self._sentences)} {text}"
        only_questions, wrap = rng.choice(_WRAPS)
        return wrap.replace("{}", text) if is_question(text) or not only_questions else text

    # --- negatives ---------------------------------------------------------------------------

    def _negative(self, text: str) -> Example:
        return Example(self._template.wrap(text), None, 0.0, -1)

    def _draw_negative(self, scope: Scope, rng: random.Random, *, heldout: bool = False) -> str:
        for _ in range(20):
            text = self._propose_negative(scope, rng, heldout)
            if text and normalise(text) not in self._claimed:
                return self._surround(text, rng, plain=1.0 if heldout else 0.6)
        return rng.choice(self._unrelated or self._unrelated_heldout or default_unrelated()).prompt

    def _propose_negative(self, scope: Scope, rng: random.Random, heldout: bool) -> str | None:
        draw = rng.random()
        if scope.frame is None or scope.subject is None:
            other = rng.choice(relation_bank())
            return _say(rng, other.wordings, draw_name(other.subject, rng))
        if heldout and draw < 0.5:
            return self._swap_subject(scope, rng.choice((scope.frame, *scope.heldout)), rng)
        if draw < 0.75:
            return self._swap_relation(scope, scope.name or scope.subject, rng)
        if draw < 0.9:
            return self._swap_relation(scope, scope.record.target, rng)
        return self._swap_relation(scope, draw_name(scope.kind, rng), rng)

    def _swap_subject(self, scope: Scope, frame: str | None, rng: random.Random) -> str | None:
        """The same question about somebody else: a neighbour."""
        if frame is None or scope.subject is None:
            return None
        draw = rng.random()
        name = draw_name(scope.kind, rng)
        other = rng.choice(self.scopes)
        if draw < 0.15 and other.name and not same_relation(other, scope):
            name = other.name
        elif draw < 0.3:
            name = draw_similar_name(scope.subject, rng) or name
        return None if self._is_edited(name, scope) else fill(frame, name)

    def _is_edited(self, name: str, scope: Scope) -> bool:
        plain = normalise(name).removeprefix("the ")
        return any(
            plain == normalise(other.subject or "").removeprefix("the ") and same_relation(other, scope)
            for other in self.scopes
        )

    def _swap_relation(self, scope: Scope, name: str, rng: random.Random) -> str | None:
        """Another question about the same name."""
        if rng.random() < 0.35:
            return _say(rng, ABOUT, name)
        if rng.random() < 0.3:
            other = rng.choice(self.scopes)
            if other.frame and not same_relation(other, scope) and not self._is_edited(name, other):
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
