"""The fusion step against the paper's: times, tokens, bytes, certificates and growth.

    python benchmarks/fusion.py                   # tables
    python benchmarks/fusion.py --json            # the same as JSON on standard output
    python benchmarks/fusion.py --smoke --json    # small sizes, under a minute, for CI
    python benchmarks/fusion.py --out FILE        # also keep the JSON, and a plot beside it
    python benchmarks/fusion.py --out FILE --resume   # go on with a run that was cut off
    python benchmarks/fusion.py --device cuda     # times by device events, and one captured graph

Exits with 1 where a step disagrees that must not, or a part breaks: see ``failures`` in the output. Parts
that need the two real models or a GPU are skipped where there are none, and listed under ``skipped``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from fusion_bench import sections
from fusion_bench.plot import plot
from fusion_bench.tables import print_tables
from fusion_bench.targets import targets
from provenance import provenance
from rich.console import Console

RESULTS = Path(__file__).parent / "results"
SECTIONS: dict[str, Callable[[sections.Plan], Any]] = {
    "cases": sections.cases,
    "pair": sections.pair_cases,
    "growth": sections.growths,
    "search": sections.searches,
    "random": sections.random_steps,
    "lists": sections.lists,
    "certificate": sections.certificates,
    "recorded": sections.recorded_steps,
    "memory": sections.memory,
    "graph": sections.graph,
}


def main() -> int:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    plan = sections.Plan(torch.device(args.device), args.smoke, tuple(args.recorded_kind))
    result = begin(args)
    crashed: list[str] = []
    skipped: list[str] = []
    # Bars and warnings go to standard error: standard output is for the numbers.
    with contextlib.redirect_stdout(sys.stderr):
        for name in args.sections:
            if name in result:
                continue
            try:
                answer = SECTIONS[name](plan)
            except Exception as error:  # one part must not cost the others
                traceback.print_exc()
                crashed.append(f"{name}: {type(error).__name__}: {error}")
                continue
            if answer is None:
                skipped.append(name)
            else:
                result[name] = answer
                save(args.out, result)
    result |= {
        "targets": targets(result),
        "skipped": skipped,
        "failures": crashed + sections.failures(result),
    }
    save(args.out, result)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print_tables(result, Console(width=150))
    if args.out is not None:
        plot(result, args.out.with_suffix(".png"))
    for failure in result["failures"]:
        print(failure, file=sys.stderr)
    return 1 if result["failures"] else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, help="also write JSON here, and a plot beside it")
    parser.add_argument("--resume", action="store_true", help="keep the parts that --out has already")
    parser.add_argument("--smoke", action="store_true", help="small sizes")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of torch")
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="parts to run (default: all)"
    )
    kinds = list(sections.NUM_CHECKED)
    parser.add_argument(
        "--recorded-kind",
        nargs="+",
        choices=kinds,
        default=kinds,
        help="maps that the recorded steps go over",
    )
    args = parser.parse_args()
    if args.threads < 1:
        parser.error(f"--threads {args.threads}: take at least 1")
    if args.resume and (args.out is None or not args.out.is_file()):
        parser.error("--resume needs --out FILE with a run to go on with")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; leave --device out to measure the CPU")
    return args


def begin(args: argparse.Namespace) -> dict[str, Any]:
    """Where and how the numbers are made, and the parts that an earlier run has finished."""
    fresh = {**provenance(), "device": args.device, "smoke": args.smoke}
    if not args.resume:
        return fresh
    earlier: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8"))
    parts = {name: earlier.pop(name) for name in SECTIONS if name in earlier}
    for name in ("failures", "skipped", "targets"):
        earlier.pop(name, None)
    return {
        **fresh,
        "earlier_runs": [*earlier.pop("earlier_runs", []), {**earlier, "parts": list(parts)}],
        **parts,
    }


def save(out: Path | None, result: dict[str, Any]) -> None:
    """Write after every part, in one move: a run that is cut off keeps what it has."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out)


if __name__ == "__main__":
    sys.exit(main())
