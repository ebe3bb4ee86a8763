"""How the outcome of the engine tests is read from pytest's report."""

from __future__ import annotations

from pathlib import Path

from compatibility import outcomes

REPORT = """<testsuites><testsuite>
<testcase name="test_a[v1]"/><testcase name="test_b[v1-bad0]"><failure message="m">text</failure></testcase>
<testcase name="test_a[v2]"/><testcase name="test_c[v2]"><skipped message="m">text</skipped></testcase>
<testcase name="test_d[v2]"><error message="m">text</error></testcase>
<testcase name="test_of_no_runner"/>
</testsuite></testsuites>"""


def test_outcomes_are_counted_by_runner(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT, encoding="utf-8")
    assert outcomes(report) == {
        "v1": {"passed": 1, "failed": 1, "skipped": 0, "not_passed": ["test_b[v1-bad0]"]},
        "v2": {"passed": 1, "failed": 1, "skipped": 1, "not_passed": ["test_c[v2]", "test_d[v2]"]},
    }
