"""Training examples from edits: other wordings of each, and what must not be taken for one.

Served behind a scope by subject, the gate mostly has to tell the edited question about a subject from all
other questions about it. So per edit and round: its prompt, other wordings of its relation, in the dress of
real prompts (chats, contexts, openers, remarks); against them the same subject in other relations, the same
wordings about others, also beside the subject's name, the target itself, and unrelated prompts. Positives
and negatives are dressed alike, so that no surface form gives the label away.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import NamedTuple

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.dress import dress
from onceedit_vllm.editing.scopes import Scope, make_scopes, same_relation
from onceedit_vllm.editing.unrelated import Unrelated, default_unrelated
from onceedit_vllm.edits import TEMPLATES, EditRecord, normalise
from onceedit_vllm.wordings.frames import fill, is_question
from onceedit_vllm.wordings.names import names_of, says
from onceedit_vllm.wordings.relations import Relation, draw_name, draw_similar_name, relation_bank
from onceedit_vllm.wordings.wordings import Wordings

#: How often a wording is left as it is.
_PLAIN = 0.5
#: Old edits that a round replays: for each new one, and at least; and the copies of each.
REPLAYED_PER_NEW, LEAST_REPLAYED, REPLAY_COPIES = 2, 16, 2
#: How often a question about the subject is one that was written for the edit, where there are any.
_WRITTEN = 0.4
#: Negatives of an edit, for each of its positives, and what they are: other questions about the subject;
#: whether the edit is so, or that it is not; something to be done with the question; the question about
#: somebody else, with the subject named beside it, and without.
NEGATIVES_PER_POSITIVE = 1.6
_NEGATIVES = {"other": 0.42, "doubt": 0.09, "task": 0.14, "beside": 0.12, "neighbour": 0.23}
#: Held-out counter-examples of an edit.
_HELDOUT = {"other": 4, "doubt": 1, "task": 1}
#: How often something is done with the edit as a statement, and with its very prompt.
_STATED, _AS_IT_IS = 0.25, 0.25
#: Mentions of a subject that is not asked about.
_BESIDE = (
    "I was reading about {}. ", "Unlike {}: ", "Not {} this time. ", "We already talked about {}. ",
    "{} is one thing. ", "Forget {}. ", "After {}, another question. ",
)  # fmt: skip


class Example(NamedTuple):
    """A text, and what to learn from it.

    Attributes:
        text: What the plug-in reads before it answers, template included.
        target: The answer to learn; None leaves the answer alone.
        label: 1.0 where the gate must open, 0.0 where it must stay shut.
        edit: Index of the edit that the text asks for, or whose subject it names; -1 for neither.
    """

    text: str
    target: str | None
    label: float
    edit: int


class Heldout(NamedTuple):
    """Wordings and counter-examples that training never sees.

    Attributes:
        positives: They ask for an edit.
        same_subject: They name an edit's subject and ask for something else.
        neighbours: They ask the same of somebody else.
        unrelated: They ask anything else.
    """

    positives: list[Example]
    same_subject: list[Example]
    neighbours: list[Example]
    unrelated: list[Example]


class Replay(NamedTuple):
    """What a plug-in that was edited before knows already, and what it is to keep to itself.

    Attributes:
        old: Indices of the edits that it was trained on before.
        removed: Edits that it still knows and for which its gate must shut.
    """

    old: frozenset[int] = frozenset()
    removed: tuple[EditRecord, ...] = ()


class Augmenter:
    """Makes the examples of every round. The same settings and seed give the same examples.

    Args:
        records: The edits.
        unrelated: Prompts that must stay untouched; None for the project's own set.
        config: Settings of the stage.
        replay: Of a plug-in that was edited before. Old edits that are learnt are then replayed a few at a
            time, so that a round grows with the new ones.
    """

    def __init__(
        self,
        records: Sequence[EditRecord],
        unrelated: Sequence[Unrelated] | None,
        config: EditingConfig,
        wordings: Sequence[Wordings] = (),
        replay: Replay | None = None,
    ) -> None:
        self._config = config
        self._replay = replay or Replay()
        self._template = TEMPLATES[config.template]
        pool = list(unrelated) if unrelated is not None else default_unrelated()
        rng = random.Random(f"unrelated {config.seed}")
        rng.shuffle(pool)
        num_heldout = min(len(pool) // 5, 40)
        self._unrelated_heldout, self._unrelated = pool[:num_heldout], pool[num_heldout:]
        self.scopes = make_scopes(records, config.seed, wordings)
        self._removed = make_scopes(self._replay.removed, config.seed)
        self._claimed = self._collect_claimed()

    def examples(self, round_number: int, learnt: Collection[int] = ()) -> list[Example]:
        """The examples of one round, shuffled.

        Args:
            round_number: From 0.
            learnt: Edits that are learnt, answer and gate: they get half the copies, all of which
                keep their answers, so that the gate is never trained without them. Old ones get
                `REPLAY_COPIES` in some of the rounds.
        """
        rng = random.Random(f"round {self._config.seed} {round_number}")
        found: list[Example] = []
        replayed = self._draw_replayed(round_number, learnt)
        for index, scope in enumerate(self.scopes):
            copies = self.copies_per_edit if index not in learnt else -(-self.copies_per_edit // 2)
            if index in learnt and index in self._replay.old:
                copies = REPLAY_COPIES if index in replayed else 0
            if copies:
                found += [self._positive(index, text) for text in self._draw_positives(scope, copies, rng)]
                found += [self._name(index, text) for text in self._draw_negatives(scope, copies, rng)]
        for scope in self._removed:
            texts = self._draw_positives(scope, self.copies_per_edit, rng)
            found += [self._negative(text) for text in self._unclaimed(texts)]
        count = min(len(self._unrelated), max(self._config.unrelated_per_round, self._num_trained))
        found += [self._negative(item.prompt) for item in rng.sample(self._unrelated, count)]
        rng.shuffle(found)
        return found

    @property
    def copies_per_edit(self) -> int:
        """Positives (and as many negatives) of one edit in one round: more when edits are few."""
        return max(self._config.min_copies, min(48, round(self._config.copies_per_round / self._num_trained)))

    @property
    def _num_trained(self) -> int:
        """Edits that are new here, or to be shut."""
        return max(1, len(self.scopes) - len(self._replay.old) + len(self._removed))

    def _draw_replayed(self, round_number: int, learnt: Collection[int]) -> set[int]:
        """The old edits whose turn it is: all of them in as few rounds as their number allows."""
        kept = sorted(self._replay.old.intersection(learnt))
        random.Random(f"replay {self._config.seed}").shuffle(kept)
        count = min(len(kept), max(LEAST_REPLAYED, REPLAYED_PER_NEW * self._num_trained))
        return {kept[(round_number * count + at) % len(kept)] for at in range(count)}

    def heldout(self) -> Heldout:
        """What the gate is calibrated on, and what tells whether an edit is learnt."""
        rng = random.Random(f"heldout {self._config.seed}")
        found = Heldout([], [], [], [])
        for index, scope in enumerate(self.scopes):
            texts = [*(scope.say(frame) for frame in scope.heldout), *scope.texts_heldout]
            texts = texts or [f"Quick reminder: {scope.record.prompt}"]
            found.positives.extend(self._positive(index, text) for text in texts)
            kinds = [kind for kind, count in _HELDOUT.items() for _ in range(count)]
            asked = [self._draw_negative(kind, scope, rng, heldout=True) for kind in kinds]
            asked += scope.others_heldout
            found.same_subject.extend(self._negative(text, index) for text in self._unclaimed(asked))
            asked = [self._swap_subject(scope, frame, rng) for frame in (scope.frame, *scope.heldout)]
            found.neighbours.extend(self._negative(text) for text in self._unclaimed(asked))
        found.unrelated.extend(self._negative(item.prompt) for item in self._unrelated_heldout)
        return found

    def prompts(self) -> list[Example]:
        """Every edit's own prompt."""
        return [self._positive(index, scope.record.prompt) for index, scope in enumerate(self.scopes)]

    def wrap(self, text: str, names: int = -1) -> Example:
        """A text that must leave the gate shut; `names` is the edit whose subject it names."""
        return self._negative(text, names)

    # --- positives ---------------------------------------------------------------------------

    def _positive(self, index: int, text: str) -> Example:
        return Example(self._template.wrap(text), self.scopes[index].record.target, 1.0, index)

    def _draw_positives(self, scope: Scope, copies: int, rng: random.Random) -> list[str]:
        """Texts that ask for the edit; the prompt comes first, as it is."""
        texts = [scope.record.prompt] * (copies - 1)
        if scope.frames and scope.frame:
            frames = [rng.choice(scope.frames if rng.random() < 0.85 else (scope.frame,)) for _ in texts]
            texts = [scope.say(frame) for frame in frames]
        texts = self._mix_in(texts, scope, rng)
        own = scope.record.rephrases if self._config.train_on_rephrases else ()
        return [scope.record.prompt, *own, *(self._dress(text, rng) for text in texts)]

    def _mix_in(self, texts: list[str], scope: Scope, rng: random.Random) -> list[str]:
        """Put written texts that are no frames in the place of some: each as often as a frame."""
        if not scope.texts:
            return texts
        share = len(scope.texts) / (len(scope.texts) + len(scope.frames))
        return [rng.choice(scope.texts) if rng.random() < share else text for text in texts]

    def _dress(self, text: str, rng: random.Random) -> str:
        return text if rng.random() < _PLAIN else dress(text, rng, chats=not self._template.prefix)

    # --- negatives ---------------------------------------------------------------------------

    def _negative(self, text: str, names: int = -1) -> Example:
        return Example(self._template.wrap(text), None, 0.0, names)

    def _name(self, index: int, text: str) -> Example:
        """A negative of an edit, which names it or does not."""
        scope = self.scopes[index]
        named = (*names_of(scope.record), *((scope.subject,) if scope.subject else ()))
        return self._negative(text, index if any(says(text, name) for name in named) else -1)

    def _draw_negatives(self, scope: Scope, copies: int, rng: random.Random) -> list[str]:
        """Texts that do not ask for it: mostly about the same subject."""
        own = scope.record.locality if self._config.train_on_locality else ()
        count = round(NEGATIVES_PER_POSITIVE * copies)
        kinds = rng.choices(list(_NEGATIVES), list(_NEGATIVES.values()), k=count)
        texts = [self._draw_negative(kind, scope, rng) for kind in kinds]
        return [*own, *(self._dress(text, rng) for text in self._unclaimed(texts))]

    def _draw_negative(
        self, kind: str, scope: Scope, rng: random.Random, *, heldout: bool = False
    ) -> str | None:
        """One of a kind of `_NEGATIVES`; another question where there is none of it."""
        frames = (scope.frame, *scope.frames)
        doubts = scope.doubts_heldout if heldout else scope.doubts
        tasks = scope.tasks_heldout if heldout else scope.tasks
        if kind == "beside":
            return self._name_beside(scope, rng.choice(frames), rng)
        if kind == "neighbour":
            return self._swap_subject(scope, rng.choice(frames), rng)
        if kind == "doubt" and doubts:
            return rng.choice(doubts)
        if kind == "task" and tasks:
            return fill(rng.choice(tasks), self._told(scope, rng))
        return self._other_question(scope, rng, heldout=heldout)

    def _unclaimed(self, texts: Sequence[str | None]) -> list[str]:
        return [text for text in texts if text and normalise(text) not in self._claimed]

    def _other_question(self, scope: Scope, rng: random.Random, *, heldout: bool = False) -> str | None:
        """Another question about the subject; a few times about the target or about anybody."""
        if scope.others and not heldout and rng.random() < _WRITTEN:
            return rng.choice(scope.others)
        draw = rng.random()
        if scope.name is None:
            other = rng.choice(relation_bank())
            return _say(rng, other.wordings, draw_name(other.subject, rng))
        if heldout or draw < 0.85:
            return self._swap_relation(scope, scope.name, rng, heldout=heldout)
        name = scope.record.target if draw < 0.95 else draw_name(scope.kind, rng)
        return self._swap_relation(scope, name, rng, heldout=False)

    def _told(self, scope: Scope, rng: random.Random) -> str:
        """The edit in any of its wordings, as a question or as what is said."""
        draw = rng.random()
        if draw < _STATED and not is_question(scope.record.prompt):
            return f"{scope.record.prompt} {scope.record.target}."
        if draw > 1 - _AS_IT_IS or not scope.frames:
            return scope.record.prompt
        return scope.say(rng.choice(scope.frames))

    def _name_beside(self, scope: Scope, frame: str | None, rng: random.Random) -> str | None:
        """The edited question about somebody else, with the subject named beside it."""
        neighbour = self._swap_subject(scope, frame, rng)
        if neighbour is None or scope.name is None:
            return None
        return rng.choice(_BESIDE).replace("{}", scope.name) + neighbour

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

    def _swap_relation(self, scope: Scope, name: str, rng: random.Random, *, heldout: bool) -> str | None:
        """Another question about the name; training and calibration draw from relations of their own."""
        if rng.random() < 0.4:
            return _say(rng, scope.about_heldout if heldout else scope.about, name)
        if not heldout and rng.random() < 0.3:
            other = rng.choice(self.scopes)
            if other.frame and not same_relation(other, scope) and not self._is_edited(name, other):
                return fill(rng.choice((other.frame, *other.frames)), name)
        fitting = self._other_relations(scope, heldout=heldout)
        return _say(rng, rng.choice(fitting).wordings, name) if fitting else None

    def _other_relations(self, scope: Scope, *, heldout: bool) -> list[Relation]:
        """Relations that fit the subject and that no edit of it asks for; a quarter is held out."""
        taken = [held.relation for held in self.scopes if held.relation and held.subject == scope.subject]
        fitting = [
            relation
            for relation in relation_bank()
            if (scope.kind is None or relation.subject == scope.kind or scope.kind == "thing")
            and relation.wordings
            and not any(relation.is_close_to(edited) for edited in taken)
        ]
        random.Random(f"relations {self._config.seed} {scope.record.id}").shuffle(fitting)
        cut = len(fitting) // 4
        return fitting[:cut] if heldout else fitting[cut:]

    def _collect_claimed(self) -> set[str]:
        """Every text that asks for an edit, as far as known; none of them may become a negative."""
        claimed: set[str] = set()
        for scope in self.scopes:
            frames = [scope.say(frame) for frame in (*scope.frames, *scope.heldout)]
            texts = (scope.record.prompt, *scope.record.rephrases, *frames)
            texts += (*scope.texts, *scope.texts_heldout)
            claimed.update(normalise(text) for text in texts)
        return claimed


def _say(rng: random.Random, wordings: Sequence[str], name: str) -> str | None:
    return fill(rng.choice(wordings), name) if wordings else None
