"""What the serving benchmark makes of its engines' turns: medians, ratios in pairs, floors, targets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Turn = dict[str, Any]

#: Two-sided 95 % quantiles of Student's t, by the number of values; between them, the one before is taken.
_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 10: 2.26, 15: 2.14, 20: 2.09, 30: 2.05}


def describe(name: str, turns: dict[str, list[Turn]]) -> dict[str, Any]:
    """One engine's case, each turn compared with plain vLLM's of the same round."""
    own, plain = turns[name], turns["plain"]
    ratios = [p["seconds"] / o["seconds"] for o, p in zip(own, plain, strict=True)]
    floors = [floor(name, o, p) for o, p in zip(own, plain, strict=True)]
    gaps, plain_gaps = ([gap for turn in each for gap in turn["itl_ms"]] for each in (own, plain))
    itl_p99, plain_p99 = percentile(gaps), percentile(plain_gaps)
    return {
        "tokens_per_s": round(statistics.median(turn["tokens"] / turn["seconds"] for turn in own), 2),
        "ratio_to_plain": round(statistics.mean(ratios), 4),
        "ratio_low": round(lower_bound(ratios), 4),
        "floor_ratio": round(statistics.mean(floors), 4),
        "ratio_to_floor": round(statistics.mean(r / f for r, f in zip(ratios, floors, strict=True)), 4),
        "ttft_ms": round(statistics.median(t for turn in own for t in turn["ttft_ms"]), 2),
        "itl_p50_ms": round(statistics.median(gaps), 2),
        "itl_p99_ms": round(itl_p99, 2),
        "itl_p99_to_floor": round(itl_p99 / (plain_p99 / statistics.mean(floors)), 4),
        "plugin_forwards": sum(turn["plugin_forwards"] for turn in own),
        "plugin_seconds": round(sum(turn["plugin_seconds"] for turn in own), 3),
        "wait_seconds": round(sum(turn["wait_seconds"] for turn in own), 3),
    }


def floor(name: str, own: Turn, plain: Turn) -> float:
    """The ratio to plain vLLM that the two models' own work allows.

    Local: one after the other. On Ray: min(1, T_llm / T_plug-in), both while the other was busy; the LLM's
    is what its engine took without waiting for the plug-in.
    """
    plugin = own["plugin_seconds"]
    if name != "ray":
        return float(plain["seconds"] / (plain["seconds"] + plugin))
    llm = own["seconds"] - own["wait_seconds"]
    return float(min(1.0, llm / plugin)) if plugin else 1.0


def percentile(values: Sequence[float], share: float = 0.99) -> float:
    """The smallest value that so many are not above."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def lower_bound(values: Sequence[float]) -> float:
    """Of a 95 % interval of the mean; the value itself where there is one only."""
    n = len(values)
    if n < 2:
        return statistics.mean(values)
    quantile = _T[max(size for size in _T if size <= n)]
    return statistics.mean(values) - quantile * statistics.stdev(values) / math.sqrt(n)


def targets(cases: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What was wanted, and the worst that was measured; None where nothing was."""
    edited = [case for case in cases if case["host"] != "plain"]
    nothing = [case for case in edited if case["in_scope"] == 0]
    everything = [case for case in edited if case["in_scope"] == 1]
    local = [case for case in everything if case["host"] == "local"]
    ray_at_8 = [case for case in everything if (case["host"], case["batch"]) == ("ray", 8)]
    half = [case for case in edited if case["in_scope"] == 0.5]
    return {
        "nothing_in_scope_ratio": _reached(0.98, min, [case["ratio_low"] for case in nothing]),
        "nothing_in_scope_plugin_forwards": _reached(0, sum, [case["plugin_forwards"] for case in nothing]),
        "local_ratio_to_floor": _reached(0.95, min, [case["ratio_to_floor"] for case in local]),
        "ray_batch_8_ratio_to_floor": _reached(0.90, min, [case["ratio_to_floor"] for case in ray_at_8]),
        "half_itl_p99_to_floor": _reached(1.3, max, [case["itl_p99_to_floor"] for case in half]),
        "tensor_parallel_2_to_1": _reached(0.95, min, _two_to_one(edited)),
    }


def _reached(wanted: float, worst: Any, values: Sequence[float]) -> dict[str, Any]:
    return {"wanted": wanted, "reached": worst(values) if values else None}


def _two_to_one(cases: Sequence[dict[str, Any]]) -> list[float]:
    """The local host's ratio to plain vLLM at two tensor-parallel ranks, by that at one."""
    ratios = {
        (case["tensor_parallel"], case["llm"], case["in_scope"], case["batch"]): case["ratio_to_plain"]
        for case in cases
        if case["host"] == "local"
    }
    return [
        round(ratio / ratios[1, *case], 4)
        for (size, *case), ratio in ratios.items()
        if size == 2 and (1, *case) in ratios
    ]
