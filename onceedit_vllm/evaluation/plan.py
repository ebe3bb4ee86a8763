"""What is asked of whom: every question in the LLM's tokens, as the protocol wants it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onceedit_vllm.config import EvaluationConfig
from onceedit_vllm.evaluation.answers import Arm, Key
from onceedit_vllm.evaluation.record import ASKING, Asked, EvalRecord
from onceedit_vllm.evaluation.tokens import Tokens
from onceedit_vllm.runner.asking import Prompt


@dataclass(frozen=True)
class Item:
    """One question of one record.

    Attributes:
        record: Whose it is.
        index: Its place among the record's questions.
        question: The question.
    """

    record: EvalRecord
    index: int
    question: Asked

    def key(self, arm: Arm) -> Key:
        """The name of an arm's answer."""
        return Key(self.record.id, self.question.stratum, self.index, arm)

    @property
    def is_plugins(self) -> bool:
        """True where the plug-in alone is asked too: where there is something to be said right."""
        return self.question.stratum in ASKING


def items_of(records: Sequence[EvalRecord]) -> list[Item]:
    """All questions, record by record."""
    return [Item(record, at, question) for record in records for at, question in enumerate(record.questions)]


class Plan:
    """Makes prompts of questions.

    Args:
        tokens: The LLM's.
        config: The protocol.
    """

    def __init__(self, tokens: Tokens, config: EvaluationConfig) -> None:
        self._tokens = tokens
        self._config = config

    def prompt_of(self, item: Item, arm: Arm) -> Prompt:
        """What is sent to the engine.

        The same under `vanilla` as under `natural-stop`: the first tokens of a greedy answer do not depend on
        how many follow.
        """
        text = in_context(item) if arm == "context" else item.question.prompt
        if self._config.protocol == "chat":
            return Prompt(self._tokens.of_turn(text), self._config.answer_tokens)
        gold = self.gold_of(item)
        forced = tuple(gold) if self._config.protocol == "teacher-forced" else ()
        return Prompt(self._tokens.of_prompt(text), max(self._config.answer_tokens, len(gold)), forced)

    def gold_of(self, item: Item) -> list[int]:
        """The wanted answer in the LLM's tokens; empty where the protocol needs none, or none is known."""
        answer = item.question.answer
        if self._config.protocol not in ("vanilla", "teacher-forced") or not answer:
            return []
        return self._tokens.of_target(item.question.prompt, answer)


def in_context(item: Item) -> str:
    """The question behind the edit, which so stands in the LLM's context."""
    edit = item.record
    return f"New fact: {edit.prompt} {edit.target}.\n{item.question.prompt}"


def batches_of(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """The items in order, `size` at a time."""
    yield from (list(items[start : start + size]) for start in range(0, len(items), size))
