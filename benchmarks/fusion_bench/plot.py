"""Two pictures of one run: times against the baseline, and growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt


def plot(result: dict[str, Any], out: Path) -> None:
    """Write a PNG; nothing where the run had neither cases nor growth."""
    if "cases" not in result and "growth" not in result:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    _times(left, result.get("cases", []))
    _growth(right, result.get("growth", {}))
    figure.suptitle(f"One fusion step, {result['device']}: {result['machine']}", fontsize=9)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _times(axes: Any, cases: list[dict[str, Any]]) -> None:
    compared = [
        case for case in cases if case["dense_ms"] and case["batch"] == 8 and case["inputs"] == "gated"
    ]
    dense = sorted({(case["V"], case["dense_ms"]) for case in compared if case["kind"] == "textual"})
    axes.plot(*zip(*dense, strict=True), "k--o", label="dense, autograd, AdamW") if dense else None
    for kind in dict.fromkeys(case["kind"] for case in compared):
        points = sorted((case["V"], case["fast_ms"]) for case in compared if case["kind"] == kind)
        axes.plot(*zip(*points, strict=True), "-o", label=kind)
    axes.set(xscale="log", yscale="log", xlabel="V = A", ylabel="ms a step of 8 rows")
    axes.set_title("against the dense baseline")
    axes.legend() if compared else None


def _growth(axes: Any, growth: dict[str, Any]) -> None:
    for axis, marker in (("V", "-o"), ("A", "-s"), ("batch", "-^")):
        points = [p for p in growth.get("points", []) if (p["kind"], p["axis"]) == ("textual", axis)]
        if points:
            sizes = [point[axis] / points[0][axis] for point in points]
            times = [point["fast_ms"] / points[0]["fast_ms"] for point in points]
            axes.plot(sizes, times, marker, label=f"{axis}: exponent {growth[axis]:.2f}")
    axes.set(xscale="log", yscale="log", xlabel="times the smallest size", ylabel="times the cost")
    axes.set_title("growth, textual")
    axes.legend() if growth else None
