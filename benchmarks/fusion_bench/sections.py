"""The parts of the fusion benchmark, each at full size and at smoke size."""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from fusion_bench import naive
from fusion_bench.agreement import TOLERANCE, random_agreement, recorded_agreement, search_agreement
from fusion_bench.certificate import BANDS, certificate
from fusion_bench.cut_lists import list_agreement
from fusion_bench.footprint import footprint
from fusion_bench.graph import captured_graph
from fusion_bench.growth import FULL, SMOKE, growth
from fusion_bench.inputs import RANGES, Inputs
from fusion_bench.recorded import Steps, record
from fusion_bench.setups import LLM, PLUGIN, Setup, invented, real
from fusion_bench.timing import time_case
from torch.nn.functional import pad

from onceedit_vllm.config import MapKind
from onceedit_vllm.models import cached_model

KINDS: tuple[MapKind, ...] = ("textual", "calibrated", "eq16", "deepen")
DENSE_KINDS: tuple[MapKind, ...] = ("calibrated", "eq16", "deepen")
#: Steps recorded from the real models, and how many of them each kind is checked on: for a dense kind the
#: whole product takes minutes.
NUM_RECORDED = 2400
NUM_CHECKED: dict[MapKind, int] = {"textual": 2400, "deepen": 248, "calibrated": 120, "eq16": 120}
#: V = A of the random steps: as large as the time of the baseline allows, and of what nothing bounds.
RANDOM_SIZES: dict[MapKind, int] = {"textual": 16384, "calibrated": 4096, "eq16": 2048, "deepen": 2048}


@dataclass(frozen=True)
class Plan:
    """Where to run, and how much."""

    device: torch.device
    smoke: bool
    #: Of the recorded steps: for the dense ones the whole product takes most of an hour.
    recorded_kinds: tuple[MapKind, ...] = tuple(NUM_CHECKED)


def _square(plan: Plan, kind: MapKind, size: int) -> Setup:
    return invented(kind, plugin_size=size, llm_size=size, num_anchors=size, device=plan.device)


def cases(plan: Plan) -> list[dict[str, Any]]:
    """The product against the baseline, on the same inputs in the same run."""
    naive.warm_up(plan.device)
    sizes, batches, repeats = (
        ((1024,), (1, 8), 3) if plan.smoke else ((8192, 16384, 32768), (1, 8, 32, 128), 9)
    )
    found = []
    for size in sizes:
        for kind in KINDS:
            setup = _square(plan, kind, size)
            found += [time_case(setup, batch, repeats=repeats) for batch in batches]
            # Where nothing bounds a step, it takes the whole product, of half a minute: one batch will do.
            found.append(time_case(setup, 8, repeats=1, family="mixed"))
            del setup
            gc.collect()
    return found


def pair_cases(plan: Plan) -> list[dict[str, Any]] | None:
    """SmolLM2 and Gemma: with a twelfth of the anchors, whose matrices fit, and with all of them."""
    if plan.smoke or _steps() is None:
        return None
    found = []
    for kind in NUM_CHECKED:
        # Textual matrices are V x V here, whatever the anchors: there is nothing to compare with.
        for every in (1,) if kind == "textual" else (12, 1):
            setup = real(kind, plan.device, every=every)
            assert setup is not None
            for batch in (1, 8, 32):
                make = _recorded_batches(batch)
                found.append(time_case(setup, batch, repeats=5, dense_repeats=int(every > 1), make=make))
            if kind == "textual" and plan.device.type == "cpu":
                found += [_on_one_core(setup, band) for band in BANDS]
            del setup
            gc.collect()
    return found


def _on_one_core(setup: Setup, band: str) -> dict[str, Any]:
    """What is left for the step on a small machine, where the engine has the other core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        make = _recorded_batches(8, *BANDS[band])
        return {**time_case(setup, 8, repeats=31, dense_repeats=0, make=make), "inputs": f"recorded, {band}"}
    finally:
        torch.set_num_threads(threads)


def _recorded_batches(batch: int, low: float = 0.9, high: float = 1.0) -> Any:
    steps = _steps()
    assert steps is not None

    def make(seed: int) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(steps.llm_logits), generator=generator)[:batch]
        alpha = low + (high - low) * torch.rand(batch, generator=generator)
        return Inputs(steps.plugin_log_probs[chosen], steps.llm_logits[chosen], alpha)

    return make


@cache
def _steps() -> Steps | None:
    plugin, llm = cached_model(PLUGIN), cached_model(LLM)
    if plugin is None or llm is None:
        return None
    steps = record(plugin, llm, NUM_RECORDED)
    # An edited plug-in has one token more, [WEIGHT], which it never says.
    return steps._replace(plugin_log_probs=pad(steps.plugin_log_probs, (0, 1), value=-math.inf))


def growths(plan: Plan) -> dict[str, Any]:
    """Exponents of the cost in V, A and the batch."""
    return growth(SMOKE if plan.smoke else FULL, plan.device, 3 if plan.smoke else 7)


def searches(plan: Plan) -> list[dict[str, Any]]:
    """The search's iterate against dense autograd: on invented columns and on the columns of SmolLM2."""
    size, count = (512, 20) if plan.smoke else (8192, 334)
    found = []
    for kind in DENSE_KINDS:
        setup = _square(plan, kind, size)
        assert setup.alignment.dense is not None
        llm_map = setup.alignment.dense.llm_map
        found += [
            search_agreement(setup.name, llm_map, plan.device, count, masked=masked)
            for masked in (False, True)
        ]
    for kind in () if plan.smoke else DENSE_KINDS:
        pair = real(kind, plan.device, every=12)
        if pair is not None and pair.alignment.dense is not None:
            # SmolLM2's own columns over a twelfth of the anchors, for a dense search of minutes, not hours.
            name = f"{PLUGIN} as the LLM, {kind}"
            found.append(search_agreement(name, pair.alignment.dense.plugin_map, plan.device, count))
        gc.collect()
    return found


def random_steps(plan: Plan) -> list[dict[str, Any]]:
    """Whole steps against the baseline."""
    count = 40 if plan.smoke else 5056
    found = []
    for kind in KINDS:
        setup = _square(plan, kind, 512 if plan.smoke else RANDOM_SIZES[kind])
        found.append(random_agreement(setup, count))
        del setup
        gc.collect()
    return found


def lists(plan: Plan) -> list[dict[str, Any]]:
    """Textual steps on whole and on cut lists, against the reference in float64."""
    size, count = (512, 40) if plan.smoke else (8192, 10_112)
    setup = _square(plan, "textual", size)
    return [list_agreement(setup, count, family) for family in RANGES]


def certificates(plan: Plan) -> list[dict[str, Any]] | None:
    """Share of recorded steps that each attempt settles, for several k."""
    return None if plan.smoke else _certificates(plan)


def _certificates(plan: Plan) -> list[dict[str, Any]] | None:
    steps = _steps()
    found: list[dict[str, Any]] = []
    for kind in DENSE_KINDS:
        setup = real(kind, plan.device)
        if setup is None or steps is None:
            return None
        found += certificate(setup, steps, (1, 4, 16, 64), 96)
    return found


def recorded_steps(plan: Plan) -> list[dict[str, Any]] | None:
    """Recorded steps of the real models against the whole product."""
    steps = None if plan.smoke else _steps()
    found = []
    for kind in plan.recorded_kinds:
        setup = None if steps is None else real(kind, plan.device)
        if setup is None or steps is None:
            return None
        found.append(recorded_agreement(setup, Steps(*(part[: NUM_CHECKED[kind]] for part in steps))))
    return found


def memory(plan: Plan) -> list[dict[str, Any]] | None:
    """What attaching and fusing takes, in processes of their own."""
    if plan.smoke or plan.device.type != "cpu" or cached_model(PLUGIN) is None or cached_model(LLM) is None:
        return None
    runs: list[tuple[MapKind, bool]] = [
        ("textual", True),
        ("textual", False),
        ("deepen", True),
        ("deepen", False),
    ]
    return [footprint(kind, fresh=fresh) for kind, fresh in runs]


def graph(plan: Plan) -> dict[str, Any] | None:
    """A step in one captured CUDA graph; None on a CPU."""
    return captured_graph(plan.device, smoke=plan.smoke) if plan.device.type == "cuda" else None


def failures(result: dict[str, Any]) -> list[str]:
    """Whatever disagrees and must not, in sentences."""
    found = [
        f"case {entry['name']}, batch {entry['batch']}: the fast path gives other tokens than the dense step"
        for entry in result.get("cases", []) + result.get("pair", [])
        if entry["token_agreement"] not in (None, 1.0)
    ]
    for entry in result.get("random", []):
        if entry["disputed"] != entry["disputed_won_by_adamw_in_float64"]:
            found.append(f"random, {entry['name']}: adamw gives another token than the baseline in float64")
    for entry in result.get("recorded", []):
        if min(entry["same_token_adamw"], entry["same_token_exact"]) < 1:
            found.append(f"recorded, {entry['name']}: a solver gives another token than the whole product")
    for part in ("random", "recorded", "lists"):
        for entry in result.get(part, []):
            if min(each["same_token"] for each in entry["cut"] or [{"same_token": 1.0}]) < 1:
                found.append(f"{part}, {entry['name']}: a cut list gives another token")
    for entry in result.get("lists", []):
        if entry["same_token_exact"] < 1:
            found.append(f"lists, {entry['name']}: a whole list gives another token than the reference")
    for entry in result.get("search", []):
        if entry["max_abs_difference_of_disputed_float64"] > TOLERANCE:
            off = entry["max_abs_difference_of_disputed_float64"]
            found.append(f"search, {entry['name']}: off by {off:.1e} in float64")
    return found
