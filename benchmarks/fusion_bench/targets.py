"""The figures that the fusion step is to reach, each with what this run measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a target: what, wanted, measured, met. Targets whose parts were not run are left out."""
    checks: list[Callable[[dict[str, Any]], list[dict[str, Any]]]] = [_steps, _times, _growth, _bytes, _graph]
    return [entry for check in checks for entry in check(result)]


def _entry(what: str, wanted: float, measured: float, *, at_least: bool) -> dict[str, Any]:
    met = measured >= wanted if at_least else measured <= wanted
    return {"what": what, "wanted": wanted, "measured": measured, "met": bool(met)}


def _steps(result: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for part, wanted in (("random", 20_000), ("recorded", 2_000), ("lists", 20_000)):
        entries = result.get(part, [])
        if entries:
            total = sum(entry["steps"] for entry in entries)
            same = sum(round(entry["steps"] * entry["same_token_exact"]) for entry in entries)
            found.append(_entry(f"{part} steps", wanted, total, at_least=True))
            found.append(_entry(f"{part} steps with the same greedy token", 1.0, same / total, at_least=True))
    return found


def _times(result: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for case in result.get("cases", []) + result.get("pair", []):
        if (case["V"], case["A"], case["batch"], case["inputs"]) == (32768, 32768, 8, "gated"):
            what = f"times faster than dense, V = A = 32768, batch 8, {case['kind']}"
            found.append(_entry(what, 200, case["speedup"], at_least=True))
    for case in result.get("pair", []) + result.get("growth", {}).get("points", []):
        if (case["V"], case["batch"], case["threads"], case["kind"]) == (262144, 8, 1, "textual"):
            inputs = case.get("inputs", "gated")
            what = f"ms a step, V = 262144, A = {case['A']}, batch 8, one core, {inputs}"
            found.append(_entry(what, 5, case["fast_ms"], at_least=False))
    return found


def _growth(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _entry(f"exponent in {axis}, {kind}", wanted, exponents[axis], at_least=False)
        for kind, exponents in result.get("growth", {}).get("by_kind", {}).items()
        for axis, wanted in (("V", 1.05), ("A", 0.1))
    ]


def _bytes(result: dict[str, Any]) -> list[dict[str, Any]]:
    pair = result.get("pair", [])
    whole = max((case["A"] for case in pair), default=0)
    groups = {
        "invented vocabularies": result.get("cases", []),
        "the real pair": [case for case in pair if case["A"] == whole],
        # Thinned so that the baseline's matrices fit: the embeddings are as large as ever.
        "the real pair, a twelfth of its anchors": [case for case in pair if case["A"] < whole],
    }
    return [
        _entry(
            f"share of the dense bytes held, worst case, {name}",
            0.05,
            max(case["bytes_held"] / case["bytes_dense"] for case in cases),
            at_least=False,
        )
        for name, cases in groups.items()
        if cases
    ]


def _graph(result: dict[str, Any]) -> list[dict[str, Any]]:
    graph = result.get("graph")
    what = "microseconds a step in one captured graph, V = 128256, batch 64"
    return [_entry(what, 100, graph["greedy_us"], at_least=False)] if graph else []
