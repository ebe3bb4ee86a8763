"""``onceedit calibrate``: a pack's thresholds chosen anew, from the user's own prompts too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import (
    check_json_target,
    columns_table,
    facts_table,
    give_json,
    give_tables,
    plain,
    reserved_stdout,
)
from onceedit_vllm.cli.quiet import quiet_bars
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.terminal import error_console

if TYPE_CHECKING:
    from rich.table import Table

    from onceedit_vllm.pack import PackReport
    from onceedit_vllm.updating.recalibrate import Judged, Recalibrated

#: Prompts of the user's that the table shows, those most wrong first.
_SHOWN = 20


@guarded
def command(
    pack: Annotated[Path, typer.Argument(help="An EditPack folder.")],
    out: Annotated[Path | None, typer.Option(help="The EditPack folder to write.")] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace the pack itself, in one step.")
    ] = False,
    negatives: Annotated[
        Path | None,
        typer.Option(help="Prompts that must be left to the LLM: text, one a line, or JSONL with `prompt`."),
    ] = None,
    positives: Annotated[
        Path | None, typer.Option(help="Prompts that ask for an edit, in the same formats.")
    ] = None,
    max_false_openings: Annotated[
        float | None,
        typer.Option(help="Rate of false openings that the texts must rule out at 95 %, such as 0.02."),
    ] = None,
    unrelated: Annotated[
        Path | None, typer.Option(help="The file that the pack was trained with, if it was given one.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an EditPack at --out.")] = False,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of tables.")] = None,
) -> None:
    """Choose anew when a pack's gate opens, without training: the model in it stays as it is, to the byte.

    Serve what comes of it by `onceedit host load`, `onceedit pack load` or a restart.
    """
    _check(out, in_place, max_false_openings)
    check_json_target(json)
    with reserved_stdout() as answer:
        prompts = {"positives": positives, "negatives": negatives, "unrelated": unrelated}
        found = _calibrate(pack, out, most_false=max_false_openings, overwrite=overwrite, **prompts)
        if json is None:
            give_tables(answer, *_tables(found))
        else:
            give_json(_as_json(found), json, answer)


def _check(out: Path | None, in_place: bool, most_false: float | None) -> None:
    if (out is None) is not in_place:
        raise BadInputError("--out, --in-place: say where the pack goes, with one of the two")
    if most_false is not None and not 0 < most_false < 1:
        raise BadInputError(f"--max-false-openings {most_false:g}: is no rate; give one between 0 and 1")


def _calibrate(pack: Path, out: Path | None, **options: Any) -> Recalibrated:
    from onceedit_vllm.updating.recalibrate import recalibrate

    quiet_bars()
    with error_console().status("reading the calibration texts and your prompts"):
        return recalibrate(pack, out, **options)


def gate_table(report: PackReport) -> Table:
    """What the thresholds make of the texts that they were chosen on."""
    table = columns_table("texts", "decided by", "open the gate", "rate", "at 95 %")
    for each in report.gate:
        by = "subject and [WEIGHT]" if each.decided_by == "subject" else "[WEIGHT] alone"
        sign = ">=" if each.asks else "<="
        rate = f"{each.opened / each.n:.1%}"
        table.add_row(each.texts, plain(by), f"{each.opened} of {each.n}", rate, f"{sign} {each.bound:.1%}")
    return table


def _tables(found: Recalibrated) -> Iterator[Table]:
    manifest = found.pack.manifest
    facts = {
        "pack": str(found.pack.root),
        "gate": f"opens at alpha {manifest.threshold:.3f} where the prompt names a subject "
        f"(before: {found.before[0]:.3f})",
        "gate by [WEIGHT] alone": f"opens at alpha {manifest.weight_threshold:.3f} "
        f"(before: {found.before[1]:.3f})",
        "edits learnt": f"{found.pack.report.num_learnt} of {len(found.pack.edits)}",
        **_counts(found),
    }
    yield facts_table("Calibrated", facts)
    yield gate_table(found.pack.report)
    if found.prompts:
        yield _prompts_table(found.prompts)


def _counts(found: Recalibrated) -> dict[str, str]:
    """How many of the user's prompts are decided right, before and after; and those that no gate can help."""
    counts = {}
    for asks, title in ((True, "your prompts for an edit"), (False, "your other prompts")):
        own = [each for each in found.prompts if each.asks is asks]
        if own:
            before, after = (
                sum(opened) for opened in zip(*((e.was_open, e.is_open) for e in own), strict=True)
            )
            counts[title] = f"{after} of {len(own)} open the gate (before: {before})"
    nameless = sum(each.asks and not each.named for each in found.prompts)
    if nameless:
        counts["without a subject"] = (
            f"{nameless} that ask for an edit name no subject of one, so no threshold opens the gate for "
            "them: give the edits aliases"
        )
    still = [each.id for each in found.pack.report.removed if not each.shut]
    if still:
        counts["removed, and open again"] = ", ".join(still)
    return counts


def _prompts_table(prompts: tuple[Judged, ...]) -> Table:
    table = columns_table("your prompt", "asks", "names", "alpha", "before", "now")
    for each in prompts[:_SHOWN]:
        before, now = ("open" if opened else "shut" for opened in (each.was_open, each.is_open))
        shown = now if each.asks == each.is_open else f"[red]{now}[/]"
        names = plain(", ".join(each.named), 40) or "-"
        asks = "yes" if each.asks else "no"
        table.add_row(plain(each.prompt, 70), asks, names, f"{each.alpha:.3f}", before, shown)
    if len(prompts) > _SHOWN:
        table.caption = f"the {_SHOWN} most wrong of {len(prompts)}; all of them with --json"
    return table


def _as_json(found: Recalibrated) -> dict[str, Any]:
    return {
        "pack": str(found.pack.root),
        "before": dict(zip(("threshold", "weight_threshold"), found.before, strict=True)),
        "manifest": found.pack.manifest.model_dump(mode="json"),
        "gate": [each.model_dump(mode="json") for each in found.pack.report.gate],
        "prompts": [each._asdict() for each in found.prompts],
    }
