"""The textual step in one captured CUDA graph, against the time its memory traffic must take."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from fusion_bench.inputs import random_inputs
from fusion_bench.setups import invented
from fusion_bench.timing import milliseconds

from onceedit_vllm.config import FusionConfig
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.fusion.fuser import Fuser

_PLUGIN_SIZE, _LLM_SIZE, _ANCHORS, _BATCH = 49152, 128256, 46000, 64
_REPLAYS = 200


def captured_graph(device: torch.device, *, smoke: bool) -> dict[str, Any]:
    """Microseconds a step, greedy and sampled, and the ratio to the memory floor.

    The floor: read and write the batch's logits once and read the plug-in's probabilities once, at the
    bandwidth that a copy of the same size reaches here.
    """
    setup = invented(
        "textual", plugin_size=_PLUGIN_SIZE, llm_size=_LLM_SIZE, num_anchors=_ANCHORS, device=device
    )
    inputs = random_inputs(_BATCH, _PLUGIN_SIZE, _LLM_SIZE, 0, "gated").to(device)
    replays = 10 if smoke else _REPLAYS
    rows = torch.arange(_BATCH, device=device)
    moved = 4 * _BATCH * (2 * _LLM_SIZE + _PLUGIN_SIZE)
    floor = 1e9 * moved / _bandwidth(device, moved)
    found: dict[str, Any] = {
        "V": _LLM_SIZE,
        "V_s": _PLUGIN_SIZE,
        "batch": _BATCH,
        "bytes_moved": moved,
        "memory_floor_us": floor / 1e3,
    }
    carrier = Carrier.of(setup.alignment, _LLM_SIZE, _PLUGIN_SIZE, device)
    for name, greedy in (("greedy", True), ("sampled", False)):
        fuser = Fuser(setup.alignment, FusionConfig(), device)
        logits = inputs.llm_logits.clone()
        search = torch.full((_BATCH,), greedy, device=device)

        def step() -> None:
            lists = carrier.carry(inputs.plugin_log_probs)
            fuser.fuse_rows_inplace(logits, rows, lists, inputs.alpha, search)  # noqa: B023

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()  # compiles the kernels and lays out the tables
        torch.cuda.current_stream().wait_stream(stream)
        recording = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recording):
            step()
        times = []
        for _ in range(replays):
            # Fresh logits for every replay; the copy also moves the last ones out of the caches.
            logits.copy_(inputs.llm_logits)
            times.append(1e3 * milliseconds(recording.replay, device))
        found[f"{name}_us"] = statistics.median(times)
        found[f"{name}_over_floor"] = statistics.median(times) * 1e3 / floor
    return found


def _bandwidth(device: torch.device, size: int) -> float:
    """Bytes a second that a copy reads and writes together."""
    source = torch.empty(max(size, 1 << 28) // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = [milliseconds(lambda: target.copy_(source), device) for _ in range(20)]
    return 2 * len(source) / (min(times) / 1e3)
