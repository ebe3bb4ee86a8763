"""What is asked of a served LLM, what counts as right, and what must not be asked at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.pool import Overlap, TextPool
from onceedit_vllm.edits import EditRecord

if TYPE_CHECKING:
    from onceedit_vllm.runner.offline import Generation

Kind = Literal["edit", "rephrase", "neighbour", "unrelated"]


class Question(NamedTuple):
    """A prompt, and what must be answered.

    Attributes:
        kind: The edit's own prompt, another wording of it, a prompt near it that must not change, or one
            that has nothing to do with any edit.
        prompt: The text to continue.
        target: The new answer; None for what the LLM says without the edits.
    """

    kind: Kind
    prompt: str
    target: str | None


def questions_of(records: Iterable[EditRecord], unrelated: Iterable[str] = ()) -> list[Question]:
    """The edits' own prompts, their rephrases and locality prompts, and prompts about something else."""
    edits = list(records)
    asked = [Question("edit", e.prompt, e.target) for e in edits]
    asked += [Question("rephrase", prompt, e.target) for e in edits for prompt in e.rephrases]
    asked += [Question("neighbour", prompt, None) for e in edits for prompt in e.locality]
    return asked + [Question("unrelated", prompt, None) for prompt in unrelated if prompt.strip()]


def apart(
    questions: Sequence[Question], records: Sequence[EditRecord], config: EditingConfig
) -> tuple[list[Question], list[Overlap]]:
    """The questions that neither training nor calibration can have seen, and why others are left out.

    The edits' own prompts are what is trained; they are asked all the same.
    """
    overlaps = TextPool(records, None, config).overlaps(q.prompt for q in questions if q.kind != "edit")
    known = {overlap.text for overlap in overlaps}
    return [q for q in questions if q.kind == "edit" or q.prompt not in known], overlaps


def is_right(question: Question, answer: Generation) -> bool:
    """The target and nothing else, to the natural stop; or the very tokens of the LLM without the edits."""
    if question.target is None:
        return answer.token_ids == answer.plain_token_ids
    return answer.text.strip().rstrip(".") == question.target


def sha256_of_questions(files: Iterable[Path]) -> str:
    """Of files one after another, in hexadecimal: which questions were asked."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
