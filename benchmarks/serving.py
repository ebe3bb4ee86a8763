"""What the edits cost a served LLM: throughput and latency, each as a ratio to plain vLLM in the same run.

    python benchmarks/serving.py --pack PACK                     # a table
    python benchmarks/serving.py --pack PACK --out FILE.json     # and the JSON, and a plot beside it
    python benchmarks/serving.py --smoke --json                  # toys, one round, for CI

Engines are processes that are all up for the whole run and take turns, plain vLLM with each of the others;
every answer has the same number of tokens. Throughput is the median over the rounds; a ratio is of one
round, and its `low` is the lower end of a 95 % interval of the mean (Student's t). The floor is what the
work itself allows: local, the LLM's time and the plug-in's one after the other; on Ray, the longer of both.
Where nothing is in scope nothing should be seen, and it takes more rounds to say so: `--rounds-outside`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engine_process import ask, engine
from outcome import add_output, as_text, print_targets, save
from provenance import provenance
from rich.console import Console
from rich.progress import track
from rich.table import Table
from serving_figures import Turn, describe, targets
from toys import make_toys

from onceedit_vllm import EditPack
from onceedit_vllm.models import resolve_model

HERE = Path(__file__).parent
UNRELATED = HERE.parent / "examples" / "data" / "unrelated.txt"
console = Console(stderr=True, width=150)


def main() -> int:
    args = parse_arguments()
    with ExitStack() as stack:
        if args.smoke:
            args.pack, args.llm = make_toys(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        pack = EditPack.load(args.pack)
        if "ray" in args.host:
            stack.enter_context(cluster())
        rounds = {"rounds": args.rounds, "rounds_outside": args.rounds_outside}
        result: dict[str, Any] = {**provenance(), "smoke": args.smoke, **rounds, "cases": []}
        for llm, size in itertools.product(args.llm, args.tensor_parallel):
            result["cases"] += measure_llm(llm, size, pack, args)
            result["targets"] = targets(result["cases"])
            save(result, args.out)
    if args.out is not None:
        draw(result, args.out.with_suffix(".png"))
    print_table(result)
    if args.json:
        print(as_text(result), end="")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, help="an EditPack; its prompts and rephrases are in scope")
    parser.add_argument("--llm", nargs="+", default=["gemma-3-270m", "qwen2.5-coder-0.5b"])
    parser.add_argument("--host", nargs="+", default=["local"], choices=["local", "ray"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], help="requests at a time")
    parser.add_argument("--in-scope", type=float, nargs="+", default=[0.0, 0.05, 0.5, 1.0])
    parser.add_argument("--max-tokens", type=int, default=32, help="tokens of every answer")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine and case")
    parser.add_argument("--rounds-outside", type=int, default=20, help="the same, with nothing in scope")
    parser.add_argument("--tensor-parallel", type=int, nargs="+", default=[1], help="ranks of each engine")
    add_output(parser, "toys, few requests, one round")
    args = parser.parse_args()
    if args.smoke:
        args.batch, args.in_scope, args.max_tokens = [2], [0.0, 1.0], 6
        args.rounds = args.rounds_outside = 1
    elif args.pack is None:
        parser.error("--pack: name an EditPack, such as the demo's")
    if min(args.rounds, args.rounds_outside) < 1:
        parser.error("--rounds, --rounds-outside: at least one")
    return args


@contextmanager
def cluster() -> Iterator[None]:
    """A cluster of Ray that ends with this benchmark, and its hosts with it."""
    import ray

    context: Any = ray.init(address="local", include_dashboard=False, log_to_driver=False)
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    try:
        yield
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()


def measure_llm(llm: str, size: int, pack: EditPack, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases of one LLM on so many ranks; its engines are up until they are done."""
    folder = str(resolve_model(llm))
    name = "toy" if args.smoke else llm
    with ExitStack() as stack:
        settings = {"folder": folder, "max_num_seqs": 64, "tensor_parallel_size": size}
        # Little, as all engines are up at once: room for 7,000 tokens of Gemma-3-270M.
        settings["kv_cache_memory_bytes"] = 1 << 28
        ours = {"plain": None, **{host: onceedit_settings(pack, host) for host in args.host}}
        engines = {
            host: stack.enter_context(engine("serving_engine.py", {**settings, "onceedit": given}))
            for host, given in ours.items()
        }
        cases = []
        wanted = [(batch, share) for batch in args.batch for share in args.in_scope]
        for batch, share in track(wanted, description=name, console=console):
            if 0 < share * num_requests(batch) < 0.5:
                continue  # not one request of so few would be in scope
            call = make_call(pack, batch, share, args.max_tokens)
            rounds = args.rounds if share else args.rounds_outside
            found = measure_case(engines, call, share, rounds)
            cases += [{"llm": name, "tensor_parallel": size, **case} for case in found]
    return cases


def onceedit_settings(pack: EditPack, host: str) -> dict[str, Any]:
    plugin: dict[str, Any] = {"host": host}
    if host == "ray":
        # On the last core; vLLM's worker binds the first ones on a CPU.
        plugin |= {"name": "benchmark", "cpus": [(os.cpu_count() or 1) - 1]}
    return {"pack": str(pack.root.resolve()), "plugin": plugin}


def num_requests(batch: int) -> int:
    return max(6, 2 * batch, 20 if batch > 1 else 0)


def make_call(pack: EditPack, batch: int, share: float, max_tokens: int) -> dict[str, Any]:
    """Prompts of which a share is the pack's own, spread evenly among the others."""
    number = num_requests(batch)
    inside = [text for edit in pack.edits for text in (edit.prompt, *edit.rephrases)]
    outside = [line for line in UNRELATED.read_text(encoding="utf-8").splitlines() if line.strip()]
    num_inside = round(share * number)
    prompts = []
    for i in range(number):
        is_inside = (i + 1) * num_inside // number > i * num_inside // number
        source = inside if is_inside else outside
        prompts.append(source[i % len(source)])
    return {"prompts": prompts, "batch": batch, "max_tokens": max_tokens}


def measure_case(
    engines: dict[str, subprocess.Popen[str]], call: dict[str, Any], share: float, rounds: int
) -> list[dict[str, Any]]:
    """One case by every engine, in turns."""
    warm = {**call, "prompts": call["prompts"][: call["batch"]], "max_tokens": 4}
    for child in engines.values():
        ask(child, warm)
    turns: dict[str, list[Turn]] = {name: [] for name in engines}
    for i in range(rounds):
        # Every other round the other way round: what drifts favours nobody.
        for name in list(engines)[:: 1 if i % 2 == 0 else -1]:
            turns[name].append(ask(engines[name], call))
    return [
        {"host": name, "in_scope": share, "batch": call["batch"], **describe(name, turns)} for name in engines
    ]


def draw(result: dict[str, Any], path: Path) -> None:
    """Throughput relative to plain vLLM over the share in scope, a line for each host and batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    llms = sorted({case["llm"] for case in result["cases"]})
    figure, axes = pyplot.subplots(1, len(llms), figsize=(5 * len(llms), 4), sharey=True, squeeze=False)
    for axis, llm in zip(axes[0], llms, strict=True):
        own = [case for case in result["cases"] if case["llm"] == llm and case["host"] != "plain"]
        for host, size, batch in sorted({(c["host"], c["tensor_parallel"], c["batch"]) for c in own}):
            key = host, size, batch
            line = [c for c in own if (c["host"], c["tensor_parallel"], c["batch"]) == key]
            shares = [case["in_scope"] for case in line]
            label = f"{host}, batch {batch}" + (f", {size} ranks" if size > 1 else "")
            axis.plot(shares, [case["ratio_to_plain"] for case in line], "o-", label=label)
        axis.set(title=llm, xlabel="share of requests in scope", ylim=(0, 1.1))
        axis.axhline(1.0, color="grey", linewidth=0.5)
    axes[0][0].set_ylabel("throughput / plain vLLM")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def print_table(result: dict[str, Any]) -> None:
    columns = (
        "llm", "tensor_parallel", "host", "in_scope", "batch", "tokens_per_s", "ratio_to_plain", "ratio_low",
        "floor_ratio", "ttft_ms", "itl_p50_ms", "itl_p99_ms", "plugin_forwards",
    )  # fmt: skip
    table = Table(*columns)
    for case in result["cases"]:
        table.add_row(*(str(case[column]) for column in columns))
    console.print(table)
    print_targets(console, result)


if __name__ == "__main__":
    sys.exit(main())
