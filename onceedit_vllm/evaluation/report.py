"""The figures of one run, as they are written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onceedit_vllm.evaluation.estimates import Estimate, estimate
from onceedit_vllm.evaluation.finetuning import FineTuning
from onceedit_vllm.evaluation.record import ASKING, STRATA, UNCHANGED, Frozen, Stratum
from onceedit_vllm.evaluation.results import QuestionResult, RecordResult
from onceedit_vllm.folders import write_file

_Measure = Callable[[QuestionResult], float | None]
#: What stands in every table, and the stratum it is the score of.
METRICS: dict[str, Stratum] = {
    "reliability": "edit",
    "generality": "rephrase",
    "locality": "locality",
    "aliases": "alias",
    "same_subject_locality": "same_subject",
}


class Summary(Frozen):
    """The headline, over all questions that training and calibration cannot have seen.

    Attributes:
        reliability: The edits' own prompts are answered right.
        generality: Other wordings are.
        locality: Prompts near an edit get the LLM's own answer.
        aliases: Prompts that name the subject otherwise are answered right.
        same_subject_locality: Other questions about the subject get the LLM's own answer.
        gate_true_positives: The gate opens for prompts that ask for an edit.
        gate_false_positives: It opens for prompts that do not.
        plugin_alone_reliability: The plug-in alone answers the edits' own prompts right.
        plugin_alone_generality: It answers other wordings right.
        transport_loss: Behind an open gate: how much more often the plug-in alone is right.
    """

    reliability: Estimate
    generality: Estimate
    locality: Estimate
    aliases: Estimate
    same_subject_locality: Estimate
    gate_true_positives: Estimate
    gate_false_positives: Estimate
    plugin_alone_reliability: Estimate
    plugin_alone_generality: Estimate
    transport_loss: Estimate


class StratumFigures(Frozen):
    """All about one kind of question; contaminated ones count in `right_of_all` only.

    Attributes:
        asked: Questions.
        contaminated: Those that training or calibration can have seen.
        right: The mean score.
        right_of_all: The same with the contaminated ones.
        unchanged: Answers that are, token by token, the LLM's own.
        in_scope: Prompts that the subjects let through.
        gate_open: Prompts on which the gate opened.
        plugin_alone: The mean score of the plug-in alone.
    """

    asked: int
    contaminated: int
    right: Estimate
    right_of_all: Estimate
    unchanged: Estimate
    in_scope: Estimate
    gate_open: Estimate
    plugin_alone: Estimate


class Report(Frozen):
    """One run of `onceedit eval`.

    Attributes:
        summary: The headline.
        strata: By kind of question.
        baselines: The same metrics of others, and `portability`, by their names.
        finetuning: How the fine-tuned LLM among them came about, if it is there.
        contaminated: Records of which at least one text can have been seen; that text is in no headline.
        left_out: Records of the file that the pack has no edit of.
        records: Every question and its answers.
        protocol: What counts as right.
        dataset: Whose records.
        llm: The served model.
        pack: Which edits: base model, fingerprint, thresholds, number of edits.
        settings: Everything else that the answers depend on.
        command: How to do it again.
        date: When it ended.
        machine: Where.
        versions: Of the packages.
        seconds: Of this run; answers that were kept from another cost nothing.
    """

    summary: Summary
    strata: dict[Stratum, StratumFigures]
    baselines: dict[str, dict[str, Estimate]]
    finetuning: FineTuning | None = None
    contaminated: tuple[str, ...]
    left_out: int
    protocol: str
    dataset: str
    llm: str
    pack: dict[str, Any]
    settings: dict[str, Any]
    command: str
    date: str
    machine: str
    versions: dict[str, str]
    seconds: float
    records: tuple[RecordResult, ...]

    def write(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_file(path, self.model_dump_json(indent=1) + "\n")


def summarise(records: Sequence[RecordResult]) -> Summary:
    """The headline of some results."""
    figures = {name: _over(records, (stratum,), _score) for name, stratum in METRICS.items()}
    return Summary(
        **figures,
        gate_true_positives=_over(records, ASKING, _gated),
        gate_false_positives=_over(records, UNCHANGED, _gated),
        plugin_alone_reliability=_over(records, ("edit",), _of_baseline("plugin")),
        plugin_alone_generality=_over(records, ("rephrase",), _of_baseline("plugin")),
        transport_loss=_over(records, ASKING, _lost_in_transport),
    )


def strata_of(records: Sequence[RecordResult]) -> dict[Stratum, StratumFigures]:
    """The figures of every kind of question that was asked."""
    kinds = [question.stratum for record in records for question in record.questions]
    return {stratum: _figures(records, stratum) for stratum in STRATA if stratum in kinds}


def baselines_of(records: Sequence[RecordResult], names: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """The metrics of others on the same questions."""
    strata: dict[str, Stratum] = {**METRICS, "portability": "portability"}
    return {
        name: {metric: _over(records, (stratum,), _of_baseline(name)) for metric, stratum in strata.items()}
        for name in names
    }


def _figures(records: Sequence[RecordResult], stratum: Stratum) -> StratumFigures:
    asked = [q for record in records for q in record.questions if q.stratum == stratum]
    only = (stratum,)
    return StratumFigures(
        asked=len(asked),
        contaminated=sum(question.contaminated for question in asked),
        right=_over(records, only, _score),
        right_of_all=_over(records, only, _score, contaminated=True),
        unchanged=_over(records, only, lambda question: float(question.unchanged)),
        in_scope=_over(records, only, lambda question: float(question.in_scope)),
        gate_open=_over(records, only, _gated),
        plugin_alone=_over(records, only, _of_baseline("plugin")),
    )


def _over(
    records: Sequence[RecordResult],
    strata: Sequence[Stratum] | frozenset[Stratum],
    measure: _Measure,
    *,
    contaminated: bool = False,
) -> Estimate:
    """A measure over the questions of some strata; those it says nothing about are left out."""
    return estimate(
        [
            [
                value
                for question in record.questions
                if question.stratum in strata
                and (contaminated or not question.contaminated)
                and (value := measure(question)) is not None
            ]
            for record in records
        ]
    )


def _score(question: QuestionResult) -> float | None:
    return question.score


def _gated(question: QuestionResult) -> float:
    return float(question.gated)


def _of_baseline(name: str) -> _Measure:
    return lambda question: question.baselines.get(name)


def _lost_in_transport(question: QuestionResult) -> float | None:
    alone = question.baselines.get("plugin")
    if not question.gated or alone is None or question.score is None:
        return None
    return alone - question.score
