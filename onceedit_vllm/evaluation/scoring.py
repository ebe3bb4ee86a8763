"""How right each answer is, under a protocol."""

from __future__ import annotations

from onceedit_vllm.config import Protocol
from onceedit_vllm.edits import TEMPLATES, Template
from onceedit_vllm.evaluation.answers import Said
from onceedit_vllm.evaluation.plan import Item
from onceedit_vllm.evaluation.record import ASKING, UNCHANGED
from onceedit_vllm.evaluation.scorers import (
    forced_accuracy,
    is_exact,
    is_said,
    text_accuracy,
    token_accuracy,
    token_agreement,
)
from onceedit_vllm.evaluation.tokens import Tokens


class Scorer:
    """Scores answers in one model's tokens, 0 to 1.

    Args:
        protocol: What counts as right.
        tokens: Of the model that wrote the answers.
        template: What that model reads around a prompt.
    """

    def __init__(self, protocol: Protocol, tokens: Tokens, template: Template = TEMPLATES["none"]) -> None:
        self._protocol = protocol
        self._tokens = tokens
        self._template = template

    def score(self, item: Item, said: Said, alone: Said) -> float | None:
        """How right an answer is; None where nothing is known to be right.

        Args:
            item: The question.
            said: The answer.
            alone: What the LLM says alone, which prompts outside the edits must get.
        """
        question = item.question
        if question.stratum in UNCHANGED:
            return self._unchanged(item, said, alone)
        if question.answer is None:
            return None
        if self._protocol == "natural-stop":
            return float(is_exact(said.text, question.answer))
        if self._protocol == "chat":
            old = item.record.old_answer if question.stratum in ASKING else None
            return float(is_said(said.text, question.answer, old))
        return self.accuracy(question.prompt, question.answer, said)

    def accuracy(self, prompt: str, answer: str, said: Said) -> float:
        """The share of the answer's tokens that were said in place."""
        gold = self._tokens.of_target(self._template.wrap(prompt), answer)
        pieces, wanted = self._tokens.pieces(said.ids[: len(gold)]), self._tokens.pieces(gold)
        if self._protocol == "teacher-forced":
            return forced_accuracy(pieces, wanted)
        return max(token_accuracy(pieces, wanted), text_accuracy(said.text, wanted))

    def _unchanged(self, item: Item, said: Said, alone: Said) -> float:
        """Token-identical or not; EasyEdit's protocols count the tokens that a known answer would have."""
        if self._protocol in ("natural-stop", "chat"):
            return float(said.ids == alone.ids)
        answer = item.question.answer
        length = len(self._tokens.of_target(item.question.prompt, answer)) if answer else len(alone.ids)
        return token_agreement(said.ids[:length], alone.ids[:length])
