"""What a change of the pack costs requests that are served meanwhile: none may fail, and none may wait long.

    python benchmarks/swap.py --pack PACK                     # a table
    python benchmarks/swap.py --pack PACK --out FILE.json     # and the JSON
    python benchmarks/swap.py --smoke --json                  # toys, one round, for CI

A real engine serves a stream of requests that the edits concern, so many at a time, and every step is timed
from the end of the one before it. In the middle of the stream another pack (--other; the same one by default)
is loaded and activated: in the engine's process through `collective_rpc`, on the Ray host as `onceedit host
load` does. The longest step of the change, divided by the median step before it, is the longest stall in
steps.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from engine_process import ask, engine
from outcome import add_output, as_text, print_targets, save
from provenance import provenance
from rich.console import Console
from rich.table import Table
from serving import onceedit_settings
from toys import make_toys

from onceedit_vllm import EditPack
from onceedit_vllm.models import resolve_model

console = Console(stderr=True, width=150)


def main() -> int:
    args = parse_arguments()
    with ExitStack() as stack:
        if args.smoke:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            args.pack, (args.llm,) = make_toys(root)
        result: dict[str, Any] = {**provenance(), "smoke": args.smoke, "rounds": args.rounds, "cases": []}
        for host in args.host:
            result["cases"].append(measure(host, args))
            result["targets"] = targets(result["cases"])
            save(result, args.out)
    print_table(result)
    if args.json:
        print(as_text(result), end="")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, help="the EditPack that the engine is started with")
    parser.add_argument("--other", type=Path, help="the one that takes its place; the same by default")
    parser.add_argument("--llm", default="gemma-3-270m")
    parser.add_argument("--host", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("--batch", type=int, default=8, help="requests at a time")
    parser.add_argument("--max-tokens", type=int, default=16, help="tokens of every answer")
    parser.add_argument("--steps", type=int, default=60, help="steps before and after a change")
    parser.add_argument("--rounds", type=int, default=3, help="changes")
    add_output(parser, "toys, few steps, one round")
    args = parser.parse_args()
    if args.smoke:
        args.batch, args.max_tokens, args.steps, args.rounds = 2, 6, 10, 1
    elif args.pack is None:
        parser.error("--pack: name an EditPack, such as the demo's")
    return args


def measure(host: str, args: argparse.Namespace) -> dict[str, Any]:
    """Changes of the pack, there and back."""
    pack, other = EditPack.load(args.pack), EditPack.load(args.other or args.pack)
    ours = onceedit_settings(pack, host)
    call = {
        "host": host,
        "name": ours["plugin"].get("name"),
        "batch": args.batch,
        "max_tokens": args.max_tokens,
        "steps": args.steps,
        "prompts": [text for edit in pack.edits for text in (edit.prompt, *edit.rephrases)],
    }
    folder = str(resolve_model(args.llm))
    with engine("swap_engine.py", {"folder": folder, "onceedit": ours}) as child:
        turns = []
        for i in range(args.rounds):
            new = (other if i % 2 == 0 else pack).root.resolve()
            turns.append(ask(child, {**call, "pack": str(new)}))
    name = "toy" if args.smoke else args.llm
    return {"llm": name, "host": host, "batch": args.batch, **describe(turns)}


def describe(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """All changes together; a stall is measured against the usual step of its own turn."""
    phases = {phase: [ms for turn in turns for ms in turn["ms"][phase]] for phase in turns[0]["ms"]}
    stalls = [max(turn["ms"]["during"]) / statistics.median(turn["ms"]["before"]) for turn in turns]
    usual = [max(turn["ms"]["before"]) / statistics.median(turn["ms"]["before"]) for turn in turns]
    figures: dict[str, Any] = {}
    for phase, gaps in phases.items():
        figures |= {
            f"steps_{phase}": len(gaps),
            f"median_ms_{phase}": round(statistics.median(gaps), 2),
            f"p99_ms_{phase}": round(sorted(gaps)[math.ceil(0.99 * len(gaps)) - 1], 2),
            f"longest_ms_{phase}": round(max(gaps), 2),
        }
    return {
        "requests": sum(turn["requests"] for turn in turns),
        "failed_requests": sum(turn["failed"] for turn in turns),
        "swap_s": round(statistics.median(turn["swap_s"] for turn in turns), 2),
        "longest_stall_steps": round(max(stalls), 2),
        "longest_without_swap_steps": round(max(usual), 2),
        "epoch": turns[-1]["epoch"],
        "packs_in_memory": turns[-1]["packs"],
        **figures,
    }


def targets(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """What was wanted, and the worst that was measured."""
    return {
        "failed_requests": {"wanted": 0, "reached": sum(case["failed_requests"] for case in cases)},
        "longest_stall_steps": {"wanted": 2, "reached": max(case["longest_stall_steps"] for case in cases)},
    }


def print_table(result: dict[str, Any]) -> None:
    columns = (
        "llm", "host", "batch", "requests", "failed_requests", "swap_s", "longest_stall_steps",
        "longest_without_swap_steps", "median_ms_before", "median_ms_during", "longest_ms_during",
    )  # fmt: skip
    table = Table(*columns)
    for case in result["cases"]:
        table.add_row(*(str(case[column]) for column in columns))
    console.print(table)
    print_targets(console, result)


if __name__ == "__main__":
    sys.exit(main())
