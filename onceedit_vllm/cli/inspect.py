"""``onceedit inspect``: what is in a pack, after checking that it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from onceedit_vllm.cli.calibrate import gate_table
from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import (
    check_json_target,
    columns_table,
    facts_table,
    give_json,
    give_tables,
    plain,
    reserved_stdout,
    size_text,
)

if TYPE_CHECKING:
    from onceedit_vllm.pack import EditPack

#: Of `manifest.training`: the updates, oldest first.
LINEAGE = "lineage"


@guarded
def command(
    pack: Annotated[Path, typer.Argument(help="An EditPack folder.")],
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of tables.")] = None,
) -> None:
    """Check every file of a pack against its manifest, and show its edits and how well each was learnt."""
    from onceedit_vllm.pack import EditPack

    check_json_target(json)
    with reserved_stdout() as answer:
        opened = EditPack.load(pack)
        if json is None:
            gate = [gate_table(opened.report)] if opened.report.gate else []
            give_tables(answer, _manifest_table(opened), *gate, _edits_table(opened))
            return
        value = {
            "manifest": opened.manifest.model_dump(mode="json"),
            "edits": [edit.model_dump(mode="json") for edit in opened.edits],
            "report": opened.report.model_dump(mode="json"),
            "wordings": [line.model_dump(mode="json") for line in opened.wordings],
        }
        give_json(value, json, answer)


def _manifest_table(pack: EditPack) -> Table:
    manifest = pack.manifest
    facts = {
        "plug-in": manifest.base_model,
        "template": manifest.template,
        "edits learnt": f"{pack.report.num_learnt} of {len(pack.edits)}",
        "written wordings": _count_wordings(pack),
        "gate": f"opens at alpha {manifest.threshold:.3f} where the prompt names a subject "
        f"({manifest.threshold_reason})",
        "gate by [WEIGHT] alone": f"opens at alpha {manifest.weight_threshold:.3f}",
        "[WEIGHT]": f"token {manifest.weight_token_id}",
        "training": ", ".join(f"{k} {value}" for k, value in manifest.training.items() if k != LINEAGE),
        **_updates(pack),
        "made with": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "format": f"version {manifest.format_version}, {len(manifest.files)} files, "
        f"{size_text(sum(manifest.sizes.values()))}, all whole",
        "base fingerprint": manifest.base_fingerprint,
    }
    return facts_table(str(pack.root), facts)


def _updates(pack: EditPack) -> dict[str, str]:
    """What was added and removed since the pack was made, an update a line."""
    return {
        f"update {number}": "; ".join(_tell(step))
        for number, step in enumerate(pack.manifest.training.get(LINEAGE, ()), start=1)
    }


def _tell(step: dict[str, Any]) -> Iterator[str]:
    for change in ("added", "removed"):
        if step[change]:
            yield f"{change} {', '.join(step[change])}"
    yield f"{step['rounds']} rounds, {step['seconds']} s"


def _count_wordings(pack: EditPack) -> str:
    """How many texts were written for the edits, and by whom."""
    counts = [
        sum(len(getattr(line, field)) for line in pack.wordings) for field in ("asking", "others", "aliases")
    ]
    writers = sorted({line.model for line in pack.wordings if line.model})
    if not any(counts):
        return "none"
    by = f", by {', '.join(writers)}" if writers else ""
    return f"{counts[0]} that ask for an edit, {counts[1]} that do not, {counts[2]} aliases{by}"


def _edits_table(pack: EditPack) -> Table:
    table = columns_table("id", "prompt", "target", "learnt", "alpha")
    outcomes = {outcome.id: outcome for outcome in pack.report.edits}
    for edit in pack.edits:
        outcome = outcomes.get(edit.id)
        learnt, alpha = (
            ("?", "?") if outcome is None else _outcome_cells(outcome.learnt, outcome.prompt_alpha)
        )
        table.add_row(plain(edit.id), plain(edit.prompt, 70), plain(edit.target, 40), learnt, alpha)
    return table


def _outcome_cells(learnt: bool, alpha: float) -> tuple[str, str]:
    return ("yes" if learnt else "[red]no[/]"), f"{alpha:.3f}"
