"""Every question with its answers and how right they are."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import groupby

from onceedit_vllm.config import EvaluationConfig
from onceedit_vllm.errors import ModelError
from onceedit_vllm.evaluation.answers import AnswersFile, Arm, Said
from onceedit_vllm.evaluation.contamination import Place
from onceedit_vllm.evaluation.lookup import Lookup
from onceedit_vllm.evaluation.plan import Item
from onceedit_vllm.evaluation.record import EvalRecord, Frozen, Stratum
from onceedit_vllm.evaluation.scoring import Scorer
from onceedit_vllm.runner.asking import Decision


class QuestionResult(Frozen):
    """One question.

    Attributes:
        stratum: Its kind.
        prompt: What was asked.
        answer: What is right, if anything is known to be.
        contaminated: Training or calibration can have seen it: it counts in no headline.
        in_scope: The plug-in was asked, or its edits opened at once: the prompt names a subject, or nothing
            was looked for.
        alpha: The plug-in's; None where it was not asked.
        gated: The gate opened.
        said: By the LLM with the edits, to the end of sequence.
        llm_said: By the LLM alone.
        plugin_said: By the plug-in alone; None where it was not asked.
        score: How right `said` is, 0 to 1; None where nothing is known to be right.
        unchanged: `said` is, token by token, `llm_said`.
        baselines: How right others are, by their names; `plugin` is there wherever it was asked.
    """

    stratum: Stratum
    prompt: str
    answer: str | None
    contaminated: bool
    in_scope: bool
    alpha: float | None
    gated: bool
    said: str
    llm_said: str
    plugin_said: str | None
    score: float | None
    unchanged: bool
    baselines: dict[str, float]


class RecordResult(Frozen):
    """One edit and its questions."""

    id: str
    prompt: str
    target: str
    subject: str | None
    old_answer: str | None
    questions: tuple[QuestionResult, ...]


class Marking:
    """Marks the answers of one run.

    Args:
        answers: All answers.
        decisions: By the prompt's name.
        contaminated: Questions that training can have seen.
        scorer: Of answers in the LLM's tokens.
        plugin_scorer: Of answers in the plug-in's.
        lookup: The cheat; None where it is not wanted.
        config: The settings.
    """

    def __init__(
        self,
        answers: AnswersFile,
        decisions: Mapping[str, Decision],
        contaminated: Container[Place],
        scorer: Scorer,
        plugin_scorer: Scorer,
        lookup: Lookup | None,
        config: EvaluationConfig,
    ) -> None:
        self._answers = answers
        self._decisions = decisions
        self._contaminated = contaminated
        self._scorer = scorer
        self._plugin_scorer = plugin_scorer
        self._lookup = lookup
        self._config = config

    def mark(self, items: Sequence[Item]) -> tuple[RecordResult, ...]:
        """The results, record by record.

        Raises:
            ModelError: The plug-in failed before the gate could decide on a prompt.
        """
        grouped = groupby(items, key=lambda item: item.record.id)
        return tuple(self._mark_record(list(group)) for _, group in grouped)

    def _mark_record(self, items: Sequence[Item]) -> RecordResult:
        record: EvalRecord = items[0].record
        return RecordResult(
            id=record.id,
            prompt=record.prompt,
            target=record.target,
            subject=record.subject,
            old_answer=record.old_answer,
            questions=tuple(self._mark_question(item) for item in items),
        )

    def _mark_question(self, item: Item) -> QuestionResult:
        edited, alone = self._answers[item.key("edited")], self._answers[item.key("llm")]
        plugin = self._answers.get(item.key("plugin"))
        decision = self._decision_of(edited)
        return QuestionResult(
            stratum=item.question.stratum,
            prompt=item.question.prompt,
            answer=item.question.answer,
            contaminated=(item.record.id, item.index) in self._contaminated,
            in_scope=decision.scope != "out",
            alpha=decision.alpha,
            gated=decision.gated,
            said=edited.text,
            llm_said=alone.text,
            plugin_said=None if plugin is None else plugin.text,
            score=self._scorer.score(item, edited, alone),
            unchanged=edited.ids == alone.ids,
            baselines=self._baselines_of(item, alone, plugin),
        )

    def _decision_of(self, edited: Said) -> Decision:
        if edited.prompt not in self._decisions:
            raise ModelError(
                "The plug-in failed before the gate could decide on every prompt; run again, and with "
                "`onceedit --verbose eval ...` read the engine's log for the reason."
            )
        return self._decisions[edited.prompt]

    def _baselines_of(self, item: Item, alone: Said, plugin: Said | None) -> dict[str, float]:
        wanted = self._config.baselines
        scores: dict[str, float | None] = {}
        if plugin is not None:
            scores["plugin"] = self._plugin_scorer.score(item, plugin, alone)
        if "llm" in wanted:
            scores["llm"] = self._scorer.score(item, alone, alone)
        if self._lookup is not None:
            scores["lookup"] = self._scorer.score(
                item, self._lookup.answer(item.question.prompt, alone), alone
            )
        if "context" in wanted:
            scores["context"] = self._scorer.score(item, self._answers[item.key("context")], alone)
        engines: tuple[Arm, ...] = ("finetuned", "eq16", "deepen")
        for arm in engines:
            if arm in wanted:
                scores[arm] = self._scorer.score(item, self._answers[item.key(arm)], alone)
        return {name: score for name, score in scores.items() if score is not None}
