"""The sweep of the recipe as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(trainings: Sequence[dict[str, Any]], console: Console) -> None:
    """A line for each set and variant: sums over the seeds, and the range of the seeds."""
    kinds = list(dict.fromkeys(kind for training in trainings for kind in training["strata"]))
    table = Table("set", "edits", "variant", "seeds", "s an edit", "threshold", *kinds)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for training in trainings:
        groups[training["dataset"], training["edits"], training["variant"]].append(training)
    for (dataset, edits, variant), own in groups.items():
        seconds = ", ".join(f"{each['training']['seconds'] / edits:.1f}" for each in own)
        cuts = ", ".join(f"{each['threshold']:.2f}" for each in own)
        shown = (shares(own, kind) for kind in kinds)
        table.add_row(dataset, str(edits), variant, str(len(own)), seconds, cuts, *shown)
    console.print(table)


def shares(trainings: Sequence[dict[str, Any]], kind: str) -> str:
    found = list(_of_kind(trainings, kind))
    if not found:
        return "-"
    single = " ".join(f"{each['right']}" for each in found)
    return f"{sum(each['right'] for each in found)} of {sum(each['n'] for each in found)} ({single})"


def _of_kind(trainings: Sequence[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    return (training["strata"][kind] for training in trainings if training["strata"].get(kind, {}).get("n"))
