"""The fusion benchmark's numbers for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

_CASES = (
    "name",
    "inputs",
    "batch",
    "threads",
    "dense_ms",
    "fast_ms",
    "speedup",
    "token_agreement",
    "bytes_held",
    "certified_rate",
)
_COLUMNS = {
    "search": ("name", "targets", "max_abs_difference_float32", "same_token_adamw", "same_token_exact"),
    "random": ("name", "steps", "same_token_exact", "same_token_adamw", "disputed"),
    "certificate": (
        "name",
        "band",
        "k",
        "by_lists",
        "by_all_lists",
        "by_rows",
        "by_finalists",
        "dense",
        "ms_per_batch",
    ),
    "memory": ("kind", "from_cache", "attach_seconds", "imports_mb", "fused_private_mb", "peak_mb"),
    "targets": ("what", "wanted", "measured", "met"),
    "recorded": ("name", "steps", "same_token_exact", "same_token_adamw"),
    "lists": ("name", "inputs", "steps", "same_token_exact"),
}


_CUT = ("name", "weights", "steps", "same_token", "certified_rate", "whole_rows_requested")


def print_tables(result: dict[str, Any], console: Console) -> None:
    """All parts that were run."""
    console.print(f"{result['machine']}, commit {result['commit']}, {result['torch_threads']} threads")
    for name in ("cases", "pair"):
        if name in result:
            console.print(_table(f"{name}: a step against the dense baseline", _CASES, result[name]))
    for name, columns in _COLUMNS.items():
        if name in result:
            console.print(_table(name, columns, result[name]))
    for name in ("random", "recorded", "lists"):
        rows = [each | {"name": entry["name"]} for entry in result.get(name, []) for each in entry["cut"]]
        if rows:
            console.print(_table(f"{name}: lists cut to a few tokens", _CUT, rows))
    for kind, exponents in result.get("growth", {}).get("by_kind", {}).items():
        console.print(f"growth, {kind}: " + ", ".join(f"{axis}^{e:.2f}" for axis, e in exponents.items()))
    if result["skipped"]:
        console.print(f"skipped: {', '.join(result['skipped'])}")
    if "graph" in result:
        console.print(f"one captured graph: {result['graph']}")


def _table(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> Table:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
