"""The cheat that must be beaten: who names a subject is told its edit's target, whatever was asked."""

from __future__ import annotations

from collections.abc import Sequence

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evaluation.answers import Said
from onceedit_vllm.evaluation.tokens import Tokens
from onceedit_vllm.plugin.scope import SubjectMatcher


class Lookup:
    """Answers from a table of subjects; everything else is the LLM's."""

    def __init__(self, edits: Sequence[EditRecord], tokens: Tokens) -> None:
        self._edits = edits
        self._matcher = SubjectMatcher(edits)
        self._tokens = tokens

    def answer(self, prompt: str, alone: Said) -> Said:
        """The target of the first edit that the prompt names, else what the LLM says alone."""
        named = self._matcher.find(prompt)
        if not named:
            return alone
        target = self._edits[named[0]].target
        return Said(f" {target}", self._tokens.of_target(prompt, target))
