"""Times of the product's step and of the baseline's, on the same inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from fusion_bench import naive
from fusion_bench.inputs import Inputs, random_inputs
from fusion_bench.product import Product
from fusion_bench.setups import Setup

from onceedit_vllm.config import FusionConfig, Solver

SOLVERS: tuple[Solver, Solver] = ("exact", "adamw")


def milliseconds(work: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock time on a CPU; on a GPU the time between two events."""
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - started)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def time_case(
    setup: Setup,
    batch: int,
    *,
    repeats: int,
    dense_repeats: int = 1,
    family: str = "gated",
    make: Callable[[int], Inputs] | None = None,
) -> dict[str, Any]:
    """One entry of ``cases``: medians over ``repeats`` batches, each seen once, after one to warm up.

    Args:
        setup: What to fuse.
        batch: Rows of a step.
        repeats: Batches for the fast path.
        dense_repeats: How many of them the baseline does too; 0 where its matrices do not fit.
        family: Of random inputs.
        make: Seed -> inputs, in place of random ones; recorded steps.
    """
    sizes = setup.sizes
    inputs_of = make or (lambda seed: random_inputs(batch, sizes["V_s"], sizes["V"], seed, family))
    product, walker = (Product(setup, FusionConfig(solver=solver)) for solver in SOLVERS)
    fast, walked, dense, same, disputed_same = [], [], [], 0, 0
    for seed in range(repeats + 1):
        inputs = inputs_of(seed).to(setup.device)
        logits, others = inputs.llm_logits.clone(), inputs.llm_logits.clone()
        times = [
            milliseconds(lambda: product.step(inputs, logits), setup.device),  # noqa: B023
            milliseconds(lambda: walker.step(inputs, others), setup.device),  # noqa: B023
        ]
        if seed == 0:
            continue
        fast.append(times[0])
        walked.append(times[1])
        if seed <= dense_repeats:
            matrices, found = setup.matrices(), []
            dense.append(
                milliseconds(lambda: found.append(naive.step(matrices, *inputs)), setup.device)  # noqa: B023
            )
            tokens = logits.argmax(dim=1)
            differs = found[0].argmax(dim=1) != tokens
            same += int((~differs).sum())
            # Entries that float32 autograd cannot tell apart, float64 can.
            disputed_same += sum(
                naive.token_in_double(matrices, inputs, row) == int(tokens[row])
                for row in differs.nonzero()[:, 0].tolist()
            )
    counts = product.fuser.counts()
    dense_ms = statistics.median(dense) if dense else None
    textual = setup.alignment.dense is None
    return {
        "name": setup.name,
        **sizes,
        "batch": batch,
        "inputs": family if make is None else "recorded",
        "threads": torch.get_num_threads(),
        "kind": setup.alignment.report.kind,
        "dense_ms": dense_ms,
        "fast_ms": statistics.median(fast),
        "fast_adamw_ms": statistics.median(walked),
        "speedup": dense_ms and dense_ms / statistics.median(fast),
        "token_agreement": (same + disputed_same) / (batch * dense_repeats) if dense else None,
        "token_agreement_float32": same / (batch * dense_repeats) if dense else None,
        "bytes_held": product.bytes_held() + setup.bytes_of_textual_maps(),
        "bytes_dense": setup.alignment.report.bytes_dense,
        # A textual map needs no certificate: its peak is computed, not bounded.
        "certified_rate": 1.0 if textual else counts.certified / max(1, counts.searched),
        "settled": None if textual else counts._asdict(),
    }
