"""Compares two result files of the same benchmark and fails where the new one is worse.

    python benchmarks/compare.py OLD.json NEW.json                    # 10 % worse fails
    python benchmarks/compare.py OLD.json NEW.json --tolerance 0.25
    python benchmarks/compare.py OLD.json NEW.json --force            # other machines: ratios only

The name of a figure says which direction is better (`fast_ms`: lower; `token_agreement`: higher; a pair of
numbers is [right, all]). Other names are not compared, nor is what a baseline takes. Exits with 1
where something is worse by more than the tolerance, with 2 where the files cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

#: Words of a figure's name, of which the last one known decides.
_LOWER = {"s", "ms", "us", "ns", "seconds", "bytes", "kib", "mb", "mib", "gb", "gib"}
_LOWER_COUNTS = {"failed", "failures", "missed", "perplexity"}
_HIGHER = {
    *("speedup", "ratio", "rate", "agreement", "agree", "same", "accuracy", "met", "reached", "passed"),
    *("reliability", "generality", "locality", "portability", "answered", "untouched"),
}
#: What is measured for comparison only: nobody's progress and nobody's fault.
_BASELINES = {"baseline", "dense", "paper", "plain", "wanted", "limit"}
#: Numbers that say which entry of a list this is.
_SETTINGS = {"A", "V", "V_s", "batch", "concurrency", "edits", "k", "seed", "subjects", "threads", "tokens"}
#: Where and how a result was made.
_PROVENANCE = {"command", "commit", "date", "earlier_runs", "machine", "torch_threads", "versions"}


class Figure(NamedTuple):
    """A number whose better direction is known.

    Attributes:
        value: As measured.
        higher_is_better: False for times and sizes.
        is_ratio: Comparable between machines.
    """

    value: float
    higher_is_better: bool
    is_ratio: bool


class Change(NamedTuple):
    """One figure in both files; ``worse`` is by what share of the old value, negative where better."""

    name: str
    old: float
    new: float
    worse: float


class IncomparableError(Exception):
    """The two files do not say the same kind of thing."""


def main() -> int:
    options = parse_arguments()
    try:
        old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (options.old, options.new))
        changes = compare(old, new, force=options.force)
    except (OSError, ValueError, IncomparableError) as error:
        print(f"Cannot compare: {error}", file=sys.stderr)
        return 2
    regressions = [change for change in changes if is_regression(change, options.tolerance)]
    print_table(changes, options.tolerance)
    gone = set(figures_of(old)) - set(figures_of(new))
    if gone:
        print(f"{len(gone)} figures of the old file are not in the new one, e.g. {min(gone)}")
    print(f"{len(regressions)} of {len(changes)} figures are more than {options.tolerance:.0%} worse")
    return 1 if regressions else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=0.1, help="share by which a figure may be worse")
    parser.add_argument("--force", action="store_true", help="compare other machines, by their ratios")
    return parser.parse_args()


def compare(old: dict[str, Any], new: dict[str, Any], *, force: bool = False) -> list[Change]:
    """Every figure that both results have.

    Args:
        old: A result file's content.
        new: Another one of the same benchmark.
        force: Compare the ratios of results from two machines.

    Raises:
        IncomparableError: Other benchmarks, other machines without ``force``, or no common figure.
    """
    same_machine = check_comparable(old, new, force=force)
    before, after = figures_of(old), figures_of(new)
    names = [name for name in before if name in after and (same_machine or before[name].is_ratio)]
    if not names:
        raise IncomparableError("the files have no figure in common")
    return [
        Change(name, before[name].value, after[name].value, worse(before[name], after[name]))
        for name in names
    ]


def check_comparable(old: dict[str, Any], new: dict[str, Any], *, force: bool) -> bool:
    """True when both were made on one machine with as many threads; see :func:`compare` for the errors."""
    scripts = [Path(str(result.get("command", "")).split(" ")[0]).name for result in (old, new)]
    if scripts[0] != scripts[1] or not scripts[0]:
        raise IncomparableError(f"made by other benchmarks: {scripts[0]!r} and {scripts[1]!r}")
    if bool(old.get("smoke")) != bool(new.get("smoke")):
        raise IncomparableError("one of them is a smoke run, whose sizes are others")
    places = [(result.get("machine"), result.get("torch_threads")) for result in (old, new)]
    same = places[0] == places[1] and places[0][0] is not None
    if not same and not force:
        raise IncomparableError(
            f"made on other machines: {places[0]} and {places[1]} (machine, threads); run the old commit "
            "again on the new machine, or pass --force to compare ratios only"
        )
    return same


def figures_of(result: dict[str, Any]) -> dict[str, Figure]:
    """All figures of a result by their place in it, `cases/textual V=8192 batch=8/fast_ms`."""
    content = {key: value for key, value in result.items() if key not in _PROVENANCE}
    return dict(_walk(content, ()))


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Figure]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _walk(inner, (*path, key))
    elif isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        for label, entry in _labelled(value):
            yield from _walk(entry, (*path, label))
    elif (figure := _figure(path, value)) is not None:
        yield "/".join(path), figure


def _figure(path: tuple[str, ...], value: Any) -> Figure | None:
    """A number, a pair [right, all], or a list of messages, whose length counts."""
    if _BASELINES & set(path[-1].split("_")) or path[-1] in _SETTINGS:
        return None
    if isinstance(value, list):
        if len(value) == 2 and all(isinstance(part, int) for part in value) and value[1] > 0:
            return Figure(value[0] / value[1], higher_is_better=True, is_ratio=True)
        value = len(value)
    return _by_name(path, float(value)) if isinstance(value, bool | int | float) else None


def _by_name(path: tuple[str, ...], value: float) -> Figure | None:
    """The innermost word that tells a direction decides: `find_us/median` is a time."""
    words = [word.lower() for part in path for word in part.split("_")]
    for before, word in reversed(list(pairwise(["", *words]))):
        if word == "throughput" or (before, word) == ("per", "s"):
            return Figure(value, higher_is_better=True, is_ratio=False)
        if word in _LOWER:
            return Figure(value, higher_is_better=False, is_ratio=False)
        if word in _LOWER_COUNTS or word in _HIGHER:
            return Figure(value, higher_is_better=word in _HIGHER, is_ratio=True)
    return None


def _labelled(entries: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Entries of a list by what they are of; equal ones are numbered."""
    seen: Counter[str] = Counter()
    for entry in entries:
        words = [value for value in entry.values() if isinstance(value, str)]
        settings = [f"{key}={entry[key]}" for key in entry if key in _SETTINGS]
        label = " ".join([*words, *settings]) or "entry"
        seen[label] += 1
        yield (label if seen[label] == 1 else f"{label} #{seen[label]}"), entry


def worse(old: Figure, new: Figure) -> float:
    """By what share of the old value the new one is worse."""
    change = old.value - new.value if old.higher_is_better else new.value - old.value
    if old.value == 0.0:
        return math.copysign(math.inf, change) if change else 0.0
    return change / abs(old.value)


def is_regression(change: Change, tolerance: float) -> bool:
    """Not a number counts as worse."""
    return not change.worse <= tolerance


def print_table(changes: list[Change], tolerance: float) -> None:
    """What changed by more than the tolerance, the worst first."""
    table = Table("figure", "old", "new", "better (+) or worse (-)")
    for change in sorted(changes, key=lambda change: -change.worse):
        if abs(change.worse) <= tolerance:
            continue
        style = "red" if is_regression(change, tolerance) else "green"
        values = (f"{change.old:.6g}", f"{change.new:.6g}", f"{-change.worse:+.1%}")
        table.add_row(change.name, *values, style=style)
    if table.row_count:
        Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
