"""The round trip: the writer is asked what it wrote, with the edit in its context and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import ModelError
from onceedit_vllm.wordings.kinds import Chat
from onceedit_vllm.wordings.names import are_alike, says

#: An LLM: chats and the most tokens of an answer in, one answer each out. Greedy, so that it can be repeated.
Ask = Callable[[Sequence[Chat], int], list[str]]

#: Tokens of an answer: enough for a name or a date.
ANSWER_TOKENS = 24
#: Words that the two answers to a counter-example must have in common.
_ALIKE = 0.5


class Pair(NamedTuple):
    """The two answers to one text.

    Attributes:
        told: With the edit in the context.
        alone: Without it.
    """

    told: str
    alone: str


def ask_all(ask: Ask, chats: Sequence[Chat], most_tokens: int) -> list[str]:
    """One answer to each chat.

    Raises:
        ModelError: There are more or fewer.
    """
    answers = ask(chats, most_tokens) if chats else []
    if len(answers) != len(chats):
        raise ModelError(f"the writer gave {len(answers)} answers to {len(chats)} chats; use another LLM")
    return answers


def ask_twice(ask: Ask, texts: Sequence[tuple[str, str]]) -> list[Pair]:
    """Have texts answered with a fact and without.

    Args:
        ask: The LLM.
        texts: Facts, and the text that is asked behind each.
    """
    chats = [_chat(text, fact) for fact, text in texts] + [_chat(text, None) for _, text in texts]
    answers = ask_all(ask, chats, ANSWER_TOKENS)
    return [Pair(*pair) for pair in zip(answers[: len(texts)], answers[len(texts) :], strict=True)]


def _chat(text: str, fact: str | None) -> Chat:
    half = not text.rstrip().endswith(("?", ".", "!"))
    order = "Complete this in a few words" if half else "Answer in a few words"
    known = f"New facts: {fact}\n" if fact else ""
    return [{"role": "user", "content": f"{known}{order}: {text}"}]


def fact_of(edit: EditRecord) -> str:
    """An edit as a sentence that stands in a context."""
    is_question = edit.prompt.rstrip().endswith(("?", ".", "!"))
    return f"{edit.prompt.rstrip()} {'The answer is ' if is_question else ''}{edit.target.strip()}."


def fault_of_asking(pair: Pair, target: str) -> str | None:
    """Why a text does not ask for the edit, as far as the LLM can tell; None where it does."""
    if not says(pair.told, target):
        return "not answered with the target"
    return "answered with the target without the edit" if says(pair.alone, target) else None


def fault_of_other(pair: Pair, targets: Sequence[str]) -> str | None:
    """Why a text is no counter-example; `targets` are those of all edits of its subject."""
    if any(says(pair.told, target) for target in targets):
        return "answered with the target"
    return None if are_alike(pair.told, pair.alone, _ALIKE) else "answered otherwise with the edit"
