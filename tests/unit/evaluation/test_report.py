"""Figures from results made by hand, and the page that shows them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from onceedit_vllm.evaluation.page import page_of, worst_misses, write_page
from onceedit_vllm.evaluation.report import Report, summarise
from tests.unit.evaluation.cases import question, report, result

SHUT = {"alpha": 0.1, "gated": False}
RECORDS = (
    result(
        "a",
        question(),
        question("rephrase"),
        question("rephrase", contaminated=True, score=0.0),
        question(
            "locality", alpha=None, gated=False, in_scope=False, score=1.0, unchanged=True, baselines={}
        ),
    ),
    result(
        "b",
        question("edit", score=0.0, said=" Os"),
        question("rephrase", **SHUT, score=0.0, said=" Paris", unchanged=True),
        question("same_subject", score=0.0, said="<b>Oslo & co</b>", baselines={}),
    ),
)


def test_the_headline() -> None:
    summary = summarise(RECORDS)
    assert (summary.reliability.value, summary.reliability.n) == (0.5, 2)
    # The contaminated rephrase counts nowhere.
    assert (summary.generality.value, summary.generality.n) == (0.5, 2)
    assert summary.locality.value == 1.0
    assert summary.same_subject_locality.value == 0.0
    assert (summary.aliases.value, summary.aliases.n) == (None, 0)
    assert summary.gate_true_positives.value == 0.75
    assert summary.gate_false_positives.value == 0.5
    assert summary.plugin_alone_reliability.value == summary.plugin_alone_generality.value == 1.0
    # Of three questions behind an open gate one was right alone and is wrong now; the shut one is the gate's.
    assert (summary.transport_loss.value, summary.transport_loss.n) == (0.3333, 3)


def test_by_kind_of_question() -> None:
    figures = report(*RECORDS).strata
    assert list(figures) == ["edit", "rephrase", "locality", "same_subject"]
    assert (figures["rephrase"].asked, figures["rephrase"].contaminated) == (3, 1)
    assert (figures["rephrase"].right.value, figures["rephrase"].right_of_all.value) == (0.5, 0.3333)
    assert figures["rephrase"].unchanged.value == 0.5
    assert figures["locality"].in_scope.value == 0.0
    assert figures["same_subject"].gate_open.value == 1.0


def test_others_stand_beside_on_the_same_questions() -> None:
    figures = report(*RECORDS, baselines=("plugin", "llm")).baselines
    assert (figures["plugin"]["reliability"].value, figures["plugin"]["locality"].n) == (1.0, 0)
    assert figures["llm"]["generality"].n == 0


def test_the_file_holds_the_headline_first_and_is_read_back(tmp_path: Path) -> None:
    written = report(*RECORDS)
    written.write(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert Report.model_validate_json(text) == written
    raw = json.loads(text)
    assert next(iter(raw)) == "summary"
    assert set(raw["summary"]) == {
        "reliability", "generality", "locality", "aliases", "same_subject_locality", "gate_true_positives",
        "gate_false_positives", "plugin_alone_reliability", "plugin_alone_generality", "transport_loss",
    }  # fmt: skip
    assert all(set(figure) == {"value", "low", "high", "n"} for figure in raw["summary"].values())
    assert {"contaminated", "records", "machine", "versions", "command", "protocol", "llm", "pack"} <= set(
        raw
    )


def test_the_worst_come_first() -> None:
    found = worst_misses(report(*RECORDS))
    assert [(q.stratum, q.gated) for q in found] == [
        ("edit", True),
        ("rephrase", False),
        ("same_subject", True),
    ]
    many = result("c", *[question("rephrase", score=0.0, alpha=at / 100, gated=False) for at in range(40)])
    worst = worst_misses(report(many))
    assert [q.alpha for q in worst] == [at / 100 for at in range(20)]


class Seen(HTMLParser):
    """The page's elements, each closed where it must be, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone(tmp_path: Path) -> None:
    write_page(report(*RECORDS, baselines=("plugin",)), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(page)
    assert seen.open == []
    assert "script" not in seen.count
    assert "src=" not in page
    assert "http" not in page
    # One histogram for each kind of question that was asked, and the curve.
    assert seen.count["svg"] == 5
    assert seen.count["polyline"] == 3
    # Answers are text, whatever they hold.
    assert "<b>Oslo & co</b>" in seen.text
    assert "0.500" in seen.text


def test_a_page_without_misses_says_so() -> None:
    assert "<p>None.</p>" in page_of(report(result("a", question())))
