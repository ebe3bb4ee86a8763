"""``onceedit eval``: how right a served LLM is with a pack's edits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.table import Table

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import STANDARD_OUTPUT, columns_table, give_tables, reserved_stdout, say
from onceedit_vllm.cli.output import check_json_target as check_target
from onceedit_vllm.cli.quiet import quiet_bars
from onceedit_vllm.cli.settings import build_settings
from onceedit_vllm.config import Baseline, Dataset, EvaluationConfig, Protocol, ScopeKind
from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from onceedit_vllm.evaluation.estimates import Estimate
    from onceedit_vllm.evaluation.report import Report

_DEFAULT = EvaluationConfig(dataset="jsonl")

Llm = Annotated[str, typer.Option(help="The LLM to serve: a name, a folder or a hub id.")]
Pack = Annotated[Path, typer.Option(help="An EditPack folder; records that it has no edit of are left out.")]
Data = Annotated[Path, typer.Option(help="The data set's file.")]
Json = Annotated[Path, typer.Option(metavar="OUT", help="The report. Answers are kept beside it.")]
Html = Annotated[Path | None, typer.Option(metavar="OUT", help="The report as one page.")]
DatasetOption = Annotated[Dataset, typer.Option(help="Which data set it is; jsonl: your own.")]
ProtocolOption = Annotated[Protocol, typer.Option(help="What counts as right.")]
Limit = Annotated[int | None, typer.Option(help="Records that are asked, from the first; default: all.")]
Baselines = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        metavar="|".join(get_args(Baseline)),
        help="Whose figures stand beside: the LLM alone, the plug-in alone, the looked-up answer of the "
        "subject named, the edit in the LLM's context, or the LLM fine-tuned on the edits; may be repeated.",
    ),
]
ScopeOption = Annotated[ScopeKind, typer.Option(help="Which prompts the edits concern.")]
Threshold = Annotated[float | None, typer.Option(help="Alpha at which the gate opens; default: the pack's.")]
MaxTokens = Annotated[int | None, typer.Option(help="LLM tokens of an answer; default: 32, in a chat 64.")]
BatchSize = Annotated[int, typer.Option(help="Questions that are asked at once.")]


@guarded
def command(
    llm: Llm,
    pack: Pack,
    data: Data,
    dataset: DatasetOption,
    json: Json,
    html: Html = None,
    protocol: ProtocolOption = _DEFAULT.protocol,
    limit: Limit = _DEFAULT.limit,
    baseline: Baselines = None,
    scope: ScopeOption = _DEFAULT.scope,
    threshold: Threshold = _DEFAULT.threshold,
    max_tokens: MaxTokens = _DEFAULT.max_tokens,
    batch_size: BatchSize = _DEFAULT.batch_size,
) -> None:
    """Ask a served LLM a data set's questions, with a pack's edits and without; a stopped run goes on."""
    config = build_settings(
        EvaluationConfig,
        {
            "dataset": ("--dataset", dataset),
            "protocol": ("--protocol", protocol),
            "limit": ("--limit", limit),
            "baselines": ("--baseline", tuple(dict.fromkeys(baseline or ()))),
            "scope": ("--scope", scope),
            "threshold": ("--threshold", threshold),
            "max_tokens": ("--max-tokens", max_tokens),
            "batch_size": ("--batch-size", batch_size),
        },
    )
    _check_targets(json, html)
    _run(llm, pack, data, json, html, config)


def _check_targets(json: Path, html: Path | None) -> None:
    for option, target in (("--json", json), ("--html", html)):
        if str(target) == STANDARD_OUTPUT:
            raise BadInputError(f"{option} -: name a file; answers are kept beside it.")
    check_target(str(json))
    if html is not None and (html.is_dir() or not html.absolute().parent.is_dir()):
        raise BadInputError(f"--html {html}: is a folder, or in none that exists; name a file.")


def _run(llm: str, pack: Path, data: Path, json: Path, html: Path | None, config: EvaluationConfig) -> None:
    from onceedit_vllm.evaluation.evaluate import evaluate
    from onceedit_vllm.evaluation.page import write_page

    with reserved_stdout() as answer:
        quiet_bars()
        report = evaluate(llm, pack, data, json, config, progress=True)
        say(f"Wrote {json}")
        if html is not None:
            write_page(report, html)
            say(f"Wrote {html}")
        tables = [_summary_table(report)] + ([_baselines_table(report)] if report.baselines else [])
        give_tables(answer, *tables)


def _summary_table(report: Report) -> Table:
    table = columns_table("", "share", "95 %", "questions")
    table.title = f"{report.llm}, {report.dataset}, {report.protocol}: {len(report.records)} records"
    for name in type(report.summary).model_fields:
        figure: Estimate = getattr(report.summary, name)
        table.add_row(name.replace("_", " "), _value(figure), _interval(figure), str(figure.n))
    seen = sum(figures.contaminated for figures in report.strata.values())
    records = len(report.contaminated)
    table.caption = f"left out: {seen} questions of {records} records, which training can generate"
    return table


def _baselines_table(report: Report) -> Table:
    metrics = list(next(iter(report.baselines.values())))
    table = columns_table("alone", *(name.replace("_", " ") for name in metrics))
    for who, figures in report.baselines.items():
        table.add_row(who, *(_value(figures[name]) for name in metrics))
    return table


def _value(figure: Estimate) -> str:
    return "-" if figure.value is None else f"{figure.value:.3f}"


def _interval(figure: Estimate) -> str:
    return "" if figure.value is None else f"{figure.low:.3f} to {figure.high:.3f}"
