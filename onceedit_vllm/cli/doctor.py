"""``onceedit doctor``: would serving work here, and if not, the mend."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from onceedit_vllm.cli.guard import FAILED, guarded
from onceedit_vllm.cli.output import (
    check_json_target,
    columns_table,
    give_json,
    give_tables,
    plain,
    reserved_stdout,
)
from onceedit_vllm.doctor import Finding, compatibility, examine

_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "broken": "[red]broken[/]"}


@guarded
def command(
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")] = None,
) -> None:
    """Show what is installed, which runner vLLM will use, what is wrong, and its mend.

    Exits with 0 when serving would work, with 1 when something is broken.
    """
    check_json_target(json)
    with reserved_stdout() as answer:
        findings = [*examine(), *_runner_findings()]
        works = all(finding.status != "broken" for finding in findings)
        if json is not None:
            value = {"serving_works": works, "findings": [finding._asdict() for finding in findings]}
            give_json(value, json, answer)
        else:
            give_tables(answer, _as_table(findings))
            answer.write("Serving works here.\n" if works else "Serving does not work here; see the mends.\n")
    if not works:
        raise typer.Exit(FAILED)


def _runner_findings() -> list[Finding]:
    from onceedit_vllm.runner.probe import probe_runner

    probe = probe_runner()
    if probe.error is not None:
        mend = "mend the other findings first; if there is none: make clean, then make venv"
        return [
            Finding("serving", "broken", f"vLLM or the processor cannot be imported: {probe.error}", mend)
        ]
    return [
        Finding("runner", "ok", f"{probe.runner} on {probe.platform}: {probe.reason}"),
        *compatibility(probe.platform, probe.runner),
        Finding(
            "limits", "ok", "engines of several workers and speculative decoding are refused at start-up"
        ),
    ]


def _as_table(findings: list[Finding]) -> Table:
    table = columns_table("state", "what", "found", "mend")
    for finding in findings:
        table.add_row(_MARKS[finding.status], finding.name, plain(finding.found), plain(finding.mend or ""))
    return table
