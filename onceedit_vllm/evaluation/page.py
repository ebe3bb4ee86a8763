"""The report as one HTML page that needs nothing else: no script, no font, no other file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from onceedit_vllm.evaluation.charts import curves, histogram
from onceedit_vllm.evaluation.estimates import Estimate
from onceedit_vllm.evaluation.finetuning import FineTuning
from onceedit_vllm.evaluation.record import ASKING, STRATA, UNCHANGED
from onceedit_vllm.evaluation.report import METRICS, Report
from onceedit_vllm.evaluation.results import QuestionResult
from onceedit_vllm.folders import write_file

#: Misses that are shown.
WORST = 20
#: Points of the curve by threshold.
_POINTS = 101
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.text { overflow-wrap: anywhere; max-width: 18rem; }
small { color: #666; } figure { margin: 0 0 1rem; display: inline-block; } svg { font-size: 12px; }
"""


def write_page(report: Report, path: Path) -> None:
    """Write the page, whole or not at all."""
    write_file(path, page_of(report))


def page_of(report: Report) -> str:
    """The page."""
    title = f"{report.llm} with {report.pack['name']}: {report.dataset}, {report.protocol}"
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            _provenance(report),
            "<h2>Summary</h2>",
            _summary(report),
            *(["<h2>Beside others</h2>", _baselines(report)] if report.baselines else []),
            "<h2>By kind of question</h2>",
            _strata(report),
            "<h2>Alpha</h2>",
            *_histograms(report),
            "<h2>Other thresholds</h2>",
            _threshold_curve(report),
            f"<h2>The worst {WORST} misses</h2>",
            _misses(report),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _provenance(report: Report) -> str:
    asked = sum(figures.asked for figures in report.strata.values())
    seen = sum(figures.contaminated for figures in report.strata.values())
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    lines = [
        f"{len(report.records)} records and {asked} questions; {report.left_out} records of the file have no "
        f"edit in the pack. {seen} questions of {len(report.contaminated)} records can have been seen by "
        "training or calibration: they count in no figure but those that say so.",
        f"{report.date}, {report.machine}. {versions}.",
        f"<code>{escape(report.command)}</code>",
    ]
    return "".join(f"<p><small>{line if '<code>' in line else escape(line)}</small></p>" for line in lines)


# --- tables ----------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; all columns but the first hold figures."""
    first, *others = head
    top = f"<th>{first}</th>" + "".join(f'<th class="figure">{name}</th>' for name in others)
    lines = "".join(
        f"<tr><td>{row[0]}</td>" + "".join(f'<td class="figure">{cell}</td>' for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{lines}</table>"


def _share(figure: Estimate) -> str:
    if figure.value is None:
        return "–"
    return f"{figure.value:.3f} <small>[{figure.low:.3f}, {figure.high:.3f}]</small>"


def _summary(report: Report) -> str:
    figures = [(name, getattr(report.summary, name)) for name in type(report.summary).model_fields]
    rows = [[name.replace("_", " "), _share(figure), str(figure.n)] for name, figure in figures]
    return _table(["", "share [95 %]", "questions"], rows)


def _baselines(report: Report) -> str:
    ours = {name: getattr(report.summary, name) for name in METRICS}
    rows = [["with the edits", *(_share(ours[name]) for name in METRICS)]]
    rows += [
        [escape(who), *(_share(figures[name]) for name in METRICS)]
        for who, figures in report.baselines.items()
    ]
    table = _table(["", *(name.replace("_", " ") for name in METRICS)], rows)
    tuning = report.finetuning
    if tuning is None:
        return table
    return f"{table}\n<p>{_tuning(tuning)}</p>"


def _tuning(tuning: FineTuning) -> str:
    return (
        f"finetuned: {tuning.learnt} of {tuning.edits} edits learnt in {tuning.epochs} epochs, "
        f"{tuning.seconds:.0f} s, for this one LLM"
    )


def _strata(report: Report) -> str:
    head = ["", "asked", "seen", "right", "right, seen too", "as the LLM alone", "in scope", "gate open"]
    rows = [
        [
            stratum.replace("_", " "),
            str(figures.asked),
            str(figures.contaminated),
            *map(_share, (figures.right, figures.right_of_all, figures.unchanged)),
            *map(_share, (figures.in_scope, figures.gate_open, figures.plugin_alone)),
        ]
        for stratum, figures in report.strata.items()
    ]
    return _table([*head, "plug-in alone right"], rows)


# --- alpha -----------------------------------------------------------------------------------


def _questions(report: Report) -> Iterator[QuestionResult]:
    """Those that count."""
    return (q for record in report.records for q in record.questions if not q.contaminated)


def _threshold_of(report: Report) -> float:
    """The one in use; of [WEIGHT] alone where no subjects are looked for."""
    given = report.settings.get("threshold")
    kind = "weight_threshold" if report.settings.get("scope") == "weight" else "threshold"
    return float(report.pack[kind] if given is None else given)


def _histograms(report: Report) -> Iterator[str]:
    for stratum in STRATA:
        asked = [question for question in _questions(report) if question.stratum == stratum]
        alphas = [question.alpha for question in asked if question.alpha is not None]
        if asked:
            words = f"{stratum.replace('_', ' ')}: {len(alphas)} in scope, {len(asked) - len(alphas)} not"
            drawing = histogram(alphas, _threshold_of(report))
            yield f"<figure>{drawing}<figcaption>{words}</figcaption></figure>"


def _threshold_curve(report: Report) -> str:
    """What other thresholds would open, as far as alpha says it: a prompt out of scope stays shut."""
    asking = [q for q in _questions(report) if q.stratum in ASKING]
    others = [q for q in _questions(report) if q.stratum in UNCHANGED]
    known = [q for q in asking if "plugin" in q.baselines]
    cuts = [at / (_POINTS - 1) for at in range(_POINTS)]
    lines = {
        "asks for an edit: opens": [(cut, _opened(asking, cut)) for cut in cuts],
        "opens and the plug-in is right": [(cut, _opened(known, cut, right=True)) for cut in cuts],
        "asks for something else: opens": [(cut, _opened(others, cut)) for cut in cuts],
    }
    return curves(lines, _threshold_of(report))


def _opened(questions: Sequence[QuestionResult], cut: float, *, right: bool = False) -> float:
    opened = [q for q in questions if q.alpha is not None and q.alpha >= cut]
    gained = [q.baselines["plugin"] if right else 1.0 for q in opened]
    return sum(gained) / len(questions) if questions else 0.0


# --- misses ----------------------------------------------------------------------------------


def worst_misses(report: Report) -> list[QuestionResult]:
    """What went most wrong: the least right, and among equals those of which the gate was surest."""
    missed = [
        question
        for question in _questions(report)
        if question.stratum in ASKING | UNCHANGED and question.score is not None and question.score < 1.0
    ]
    return sorted(missed, key=lambda question: (question.score, -_wrongness(question)))[:WORST]


def _wrongness(question: QuestionResult) -> float:
    """How far alpha is on the wrong side; an open gate with a wrong answer is as wrong as can be."""
    alpha = question.alpha or 0.0
    if question.stratum in UNCHANGED:
        return alpha
    return 1.0 if question.gated else 1.0 - alpha


def _misses(report: Report) -> str:
    head = ["", "prompt", "wanted", "with the edits", "the LLM alone", "the plug-in alone", "alpha"]
    top = "".join(f"<th>{name}</th>" for name in head)
    rows = []
    for question in worst_misses(report):
        wanted = question.answer if question.stratum in ASKING else "as the LLM alone"
        texts = (question.prompt, wanted, question.said, question.llm_said, question.plugin_said)
        cells = "".join(f'<td class="text">{escape(_line(text))}</td>' for text in texts)
        alpha = "out of scope" if question.alpha is None else f"{question.alpha:.3f}"
        gate = "open" if question.gated else "shut"
        stratum = question.stratum.replace("_", " ")
        rows.append(f'<tr><td>{stratum}</td>{cells}<td class="figure">{alpha}, {gate}</td></tr>')
    return f"<table><tr>{top}</tr>{''.join(rows)}</table>" if rows else "<p>None.</p>"


def _line(text: str | None) -> str:
    return " ".join((text or "–").split())
