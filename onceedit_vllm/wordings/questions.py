"""The round trip: the writer is asked what it wrote, with the edit in its context and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import ModelError
from onceedit_vllm.wordings.kinds import Chat, Field
from onceedit_vllm.wordings.names import are_alike, says

#: An LLM: chats and the most tokens of an answer in, one answer each out. Greedy, so that it can be repeated.
Ask = Callable[[Sequence[Chat], int], list[str]]

#: Tokens of an answer: enough for a name or a date.
ANSWER_TOKENS = 24
#: Words that the two answers to a counter-example must have in common.
_ALIKE = 0.5


def ask_all(ask: Ask, chats: Sequence[Chat], most_tokens: int) -> list[str]:
    """One answer to each chat.

    Raises:
        ModelError: There are more or fewer.
    """
    answers = ask(chats, most_tokens) if chats else []
    if len(answers) != len(chats):
        raise ModelError(f"the writer gave {len(answers)} answers to {len(chats)} chats; use another LLM")
    return answers


def ask_texts(ask: Ask, texts: Sequence[tuple[str | None, str]]) -> list[str]:
    """Have texts answered.

    Args:
        ask: The LLM.
        texts: What the LLM is told before, if anything, and the text.
    """
    return ask_all(ask, [_chat(text, fact) for fact, text in texts], ANSWER_TOKENS)


def _chat(text: str, fact: str | None) -> Chat:
    order = "Complete this in a few words" if _is_half(text) else "Answer in a few words"
    known = f"New facts: {fact}\n" if fact else ""
    return [{"role": "user", "content": f"{known}{order}: {text}"}]


def _is_half(text: str) -> bool:
    return not text.rstrip().endswith(("?", ".", "!"))


def fact_of(edit: EditRecord) -> str:
    """An edit as a sentence that stands in a context."""
    between = " " if _is_half(edit.prompt) else " The answer is "
    return f"{edit.prompt.rstrip()}{between}{edit.target.strip()}."


def fault_of_told(field: Field, told: str, target: str, targets: Sequence[str]) -> str | None:
    """What the answer with the edit in the context says against a text; None for nothing.

    Args:
        field: The list that the text belongs to.
        told: The answer.
        target: The edit's.
        targets: Those of all edits of its subject.
    """
    if field == "others":
        return "answered with the target" if any(says(told, each) for each in targets) else None
    return None if says(told, target) else "not answered with the target"


def fault_of_alone(field: Field, text: str, alone: str, told: str, target: str) -> str | None:
    """What the answer without the edit says against a text that was answered rightly with it."""
    if field == "others":
        # A half sentence goes on in many ways, and in another with anything before it.
        same = _is_half(text) or are_alike(told, alone, _ALIKE)
        return None if same else "answered otherwise with the edit"
    return "answered with the target without the edit" if says(alone, target) else None
