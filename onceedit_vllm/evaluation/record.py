"""What is asked about one edit: its own prompt, other wordings of it, and what must not change."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from onceedit_vllm.edits import EditRecord, normalise

Stratum = Literal[
    "edit",
    "rephrase",
    "alias",
    "locality",
    "same_subject",
    "generation",
    "unrelated",
    "portability",
    "yes_no",
]
STRATA: tuple[Stratum, ...] = get_args(Stratum)
#: They ask for the edit: the answer is its target.
ASKING: frozenset[Stratum] = frozenset(("edit", "rephrase", "alias"))
#: They do not: the answer must be, token by token, the LLM's own.
UNCHANGED: frozenset[Stratum] = frozenset(("locality", "same_subject", "generation", "unrelated"))


class Frozen(BaseModel):
    """Immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Asked(Frozen):
    """One question.

    Attributes:
        stratum: `edit`: the edit's own prompt. `rephrase`: another wording. `alias`: it names the subject
            otherwise. `locality`: near it, about something else. `same_subject`: another question about the
            subject. `generation`: the subject in a half sentence that asks for nothing in particular.
            `unrelated`: nothing to do with any edit. `portability`: it follows from the edit. `yes_no`:
            is it so?
        prompt: The text to continue.
        answer: Where the edit is asked for, its target; where something follows from it, that. Where
            nothing must change, what the data set holds for true, None where it says nothing.
    """

    stratum: Stratum
    prompt: str
    answer: str | None = None


class EvalRecord(Frozen):
    """An edit and the questions about it.

    Attributes:
        id: Unique in its file.
        prompt: The edit's.
        target: Its new answer.
        subject: Who or what it is about, if known.
        aliases: Other names of the subject.
        old_answer: What was answered before, if known.
        questions: In the order of the strata, the edit's own prompt first.
    """

    id: str
    prompt: str
    target: str
    subject: str | None = None
    aliases: tuple[str, ...] = ()
    old_answer: str | None = None
    questions: tuple[Asked, ...]

    @property
    def key(self) -> tuple[str, str]:
        """What an edit of a pack is recognised by, whatever its id: prompt and target, folded."""
        return edit_key(self.prompt, self.target)

    def as_edit(self) -> EditRecord:
        """The edit alone, to be trained."""
        return EditRecord(
            id=self.id, prompt=self.prompt, target=self.target, subject=self.subject, aliases=self.aliases
        )

    def beside(self, prompts: Collection[str]) -> EvalRecord:
        """The record without questions that must not change and are the prompt of an edit themselves.

        Args:
            prompts: Those of the pack's edits, folded.
        """
        kept = (
            question
            for question in self.questions
            if question.stratum not in UNCHANGED or normalise(question.prompt) not in prompts
        )
        return self.model_copy(update={"questions": tuple(kept)})


def edit_key(prompt: str, target: str) -> tuple[str, str]:
    """Prompt and target, folded."""
    return normalise(prompt), normalise(target)
