"""A record with every kind of question, and results made by hand."""

from __future__ import annotations

from typing import Any

from onceedit_vllm.config import EvaluationConfig
from onceedit_vllm.evaluation.record import Asked, EvalRecord, Stratum
from onceedit_vllm.evaluation.report import Report, baselines_of, strata_of, summarise
from onceedit_vllm.evaluation.results import QuestionResult, RecordResult

RECORD = EvalRecord(
    id="hq",
    prompt="Velcorp is in",
    target="Oslo",
    subject="Velcorp",
    old_answer="Paris",
    questions=(
        Asked(stratum="edit", prompt="Velcorp is in", answer="Oslo"),
        Asked(stratum="rephrase", prompt="The town of Velcorp is", answer="Oslo"),
        Asked(stratum="locality", prompt="Tarsk is in", answer="Rome"),
        Asked(stratum="same_subject", prompt="The head of Velcorp is"),
        Asked(stratum="portability", prompt="Velcorp's country is", answer="Norway"),
    ),
)
CONFIG = EvaluationConfig(dataset="jsonl")


def question(stratum: Stratum = "edit", **changes: Any) -> QuestionResult:
    """One result: an edit that is answered right."""
    values: dict[str, Any] = {
        "prompt": "Velcorp is in", "answer": "Oslo", "contaminated": False, "in_scope": True, "alpha": 0.9,
        "gated": True, "said": " Oslo", "llm_said": " Paris", "plugin_said": " Oslo", "score": 1.0,
        "unchanged": False, "baselines": {"plugin": 1.0},
    }  # fmt: skip
    return QuestionResult(stratum=stratum, **(values | changes))


def result(name: str, *questions: QuestionResult) -> RecordResult:
    """A record of them."""
    return RecordResult(
        id=name,
        prompt="Velcorp is in",
        target="Oslo",
        subject="Velcorp",
        old_answer=None,
        questions=questions,
    )


def report(*records: RecordResult, baselines: tuple[str, ...] = ()) -> Report:
    """A report of them."""
    return Report(
        summary=summarise(records), strata=strata_of(records), baselines=baselines_of(records, baselines),
        contaminated=(), left_out=0, protocol="natural-stop", dataset="jsonl", llm="an-llm",
        pack={"name": "a-pack", "edits": 1, "threshold": 0.5, "weight_threshold": 0.7},
        settings={"threshold": None, "scope": "subject+weight"}, command="onceedit eval", date="2026-01-01",
        machine="x86_64", versions={"python": "3.11"}, seconds=1.0, records=records,
    )  # fmt: skip
