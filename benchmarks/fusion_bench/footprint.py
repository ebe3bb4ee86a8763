"""Memory of attaching the two real models and fusing with them, in a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from onceedit_vllm.config import MapKind


def footprint(kind: MapKind, *, fresh: bool) -> dict[str, Any]:
    """Run this file and read what it prints; ``fresh`` starts from an empty cache of alignments."""
    command = [sys.executable, __file__, kind, "fresh" if fresh else "cached"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=3600)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _measure(kind: MapKind, cache: Path | None) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fusion_bench.inputs import random_inputs
    from fusion_bench.product import Product
    from fusion_bench.setups import real

    from onceedit_vllm.config import FusionConfig

    imports = _megabytes()["VmHWM"]
    setup = real(kind, torch.device("cpu"), cache=cache)
    assert setup is not None
    attached = _megabytes()
    product = Product(setup, FusionConfig())
    for seed in range(5):
        inputs = random_inputs(8, setup.sizes["V_s"], setup.sizes["V"], seed, "gated")
        product.step(inputs, inputs.llm_logits)
    if kind != "textual" and not setup.alignment.report.from_cache:
        # One step that nothing can bound: the whole product.
        inputs = random_inputs(1, setup.sizes["V_s"], setup.sizes["V"], 0, "gated")
        flat = inputs._replace(plugin_log_probs=torch.full_like(inputs.plugin_log_probs, -10.8))
        product.step(flat, flat.llm_logits.zero_())
    after = _megabytes()
    report = setup.alignment.report
    return {
        "kind": kind,
        "from_cache": report.from_cache,
        "attach_seconds": report.seconds,
        "tflops": report.tflops,
        "llm_tokens": report.llm_tokens,
        "paper_tflops": report.paper_tflops,
        "paper_tokens": report.paper_tokens,
        "imports_mb": imports,
        "attached_private_mb": attached["RssAnon"],
        "attached_mapped_mb": attached["RssFile"],
        "fused_private_mb": after["RssAnon"],
        "peak_mb": after["VmHWM"],
        "counts": product.fuser.counts()._asdict(),
    }


def _megabytes() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon", "RssFile")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        kind: Any = sys.argv[1]
        print(json.dumps(_measure(kind, Path(folder) if sys.argv[2] == "fresh" else None)))
