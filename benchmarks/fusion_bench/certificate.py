"""How many of the heaviest tokens the certificate needs, measured on recorded steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fusion_bench.inputs import Inputs
from fusion_bench.product import Product
from fusion_bench.recorded import Steps
from fusion_bench.setups import Setup
from fusion_bench.timing import milliseconds
from rich.progress import track

from onceedit_vllm.config import FusionConfig

_BATCH = 8
#: The weights of rows whose gate is open, and all there are.
BANDS = {"alpha 0 to 1": (0.0, 1.0), "alpha 0.9 to 1": (0.9, 1.0)}


def certificate(setup: Setup, steps: Steps, sizes: Sequence[int], count: int) -> list[dict[str, Any]]:
    """For each k and band of weights: what settled the steps, and milliseconds a batch of 8."""
    chosen = torch.randperm(len(steps.llm_logits), generator=torch.Generator().manual_seed(1))[:count]
    return [
        _rates(setup, steps, chosen, k, band)
        for band in track(BANDS, description=f"The certificate, {setup.name}")
        for k in sizes
    ]


def _rates(setup: Setup, steps: Steps, chosen: torch.Tensor, k: int, band: str) -> dict[str, Any]:
    low, high = BANDS[band]
    alpha = low + (high - low) * torch.rand(len(chosen), generator=torch.Generator().manual_seed(2))
    product = Product(setup, FusionConfig(top_k=k))
    elapsed = 0.0
    for part, weights in zip(chosen.split(_BATCH), alpha.split(_BATCH), strict=True):
        inputs = Inputs(steps.plugin_log_probs[part], steps.llm_logits[part], weights).to(setup.device)
        logits = inputs.llm_logits.clone()
        elapsed += milliseconds(lambda: product.step(inputs, logits), setup.device)  # noqa: B023
    counts = product.fuser.counts()
    return {
        "name": setup.name,
        "kind": setup.alignment.report.kind,
        "k": k,
        "band": band,
        "steps": len(chosen),
        "by_lists": counts.by_lists / counts.searched,
        "by_all_lists": counts.by_all_lists / counts.searched,
        "by_rows": counts.by_rows / counts.searched,
        "by_finalists": counts.by_finalists / counts.searched,
        "dense": counts.dense_steps / counts.searched,
        "certified_rate": counts.certified / counts.searched,
        "ms_per_batch": elapsed / -(-len(chosen) // _BATCH),
    }
