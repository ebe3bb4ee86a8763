"""How the cost of a step grows with V, A and the batch: exponents of fitted power laws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from fusion_bench.setups import invented
from fusion_bench.timing import time_case

from onceedit_vllm.config import MapKind


class Sweep(NamedTuple):
    """The sizes of one kind's sweeps; what is not swept stays at the sizes of ``at``."""

    at: tuple[int, int, int, int]  # V_s, V_l, A, batch
    vocabularies: tuple[int, ...]
    anchors: tuple[int, ...]
    batches: tuple[int, ...]


_DENSE = Sweep((8192, 16384, 8192, 8), (8192, 16384, 32768), (2048, 4096, 8192), (1, 8, 32, 128))
FULL = {
    "textual": Sweep(
        (49152, 131072, 32768, 8), (32768, 65536, 131072, 262144), (2048, 8192, 32768), (1, 8, 32, 128)
    ),
    "calibrated": _DENSE,
    "eq16": _DENSE,
    "deepen": _DENSE,
}
SMOKE = {
    "textual": Sweep((2048, 4096, 1024, 4), (2048, 8192), (512, 2048), (1, 8)),
    "calibrated": Sweep((2048, 2048, 512, 4), (2048, 4096), (256, 1024), (1, 8)),
}


def growth(sweeps: dict[str, Sweep], device: torch.device, repeats: int) -> dict[str, Any]:
    """Exponents for the default kind, those of every kind, and the points that were fitted."""
    points = [point for kind, sweep in sweeps.items() for point in _points(kind, sweep, device, repeats)]
    by_kind = {
        kind: {
            axis: _exponent([p for p in points if (p["kind"], p["axis"]) == (kind, axis)])
            for axis in ("V", "A", "batch")
        }
        for kind in sweeps
    }
    return {"kind": "textual", **by_kind["textual"], "by_kind": by_kind, "points": points}


def _points(kind: str, sweep: Sweep, device: torch.device, repeats: int) -> Iterator[dict[str, Any]]:
    plugin_size, llm_size, num_anchors, batch = sweep.at
    runs = [("V", plugin_size, size, num_anchors, batch) for size in sweep.vocabularies]
    runs += [("A", plugin_size, llm_size, size, batch) for size in sweep.anchors]
    runs += [("batch", plugin_size, llm_size, num_anchors, size) for size in sweep.batches]
    for axis, v_s, v_l, a, n in runs:
        chosen: MapKind = kind  # type: ignore[assignment]
        setup = invented(chosen, plugin_size=v_s, llm_size=v_l, num_anchors=a, device=device)
        case = time_case(setup, n, repeats=repeats, dense_repeats=0)
        yield {
            "axis": axis,
            **{key: case[key] for key in ("kind", "V_s", "V", "A", "batch", "threads", "fast_ms")},
        }


def _exponent(points: list[dict[str, Any]]) -> float:
    """The slope of log time over log size."""
    axis = points[0]["axis"]
    sizes, times = ([point[key] for point in points] for key in (axis, "fast_ms"))
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
