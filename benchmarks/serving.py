"""What the edits cost a served LLM: throughput and latency, each as a ratio to plain vLLM in the same run.

    python benchmarks/serving.py --pack PACK                     # a table
    python benchmarks/serving.py --pack PACK --out FILE.json     # and the JSON, and a plot beside it
    python benchmarks/serving.py --smoke --json                  # toys, one round, for CI

Engines are processes that are all up for the whole run and take turns, plain vLLM with each of the others;
every answer has the same number of tokens. Throughput is the median over the rounds; a ratio is of one
round, and its `low` is the lower end of a 95 % interval of the mean (Student's t). The floor is what the
work itself allows: local, the LLM's time and the plug-in's one after the other; on Ray, the longer of both.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from provenance import provenance
from rich.console import Console
from rich.progress import track
from rich.table import Table

from onceedit_vllm import EditPack
from onceedit_vllm.models import resolve_model

HERE = Path(__file__).parent
UNRELATED = HERE.parent / "examples" / "data" / "unrelated.txt"
console = Console(stderr=True, width=150)
#: Two-sided 95 % quantiles of Student's t, by the number of rounds.
_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


def main() -> int:
    args = parse_arguments()
    with ExitStack() as stack:
        if args.smoke:
            args.pack, args.llm = make_toys(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        pack = EditPack.load(args.pack)
        result: dict[str, Any] = {**provenance(), "smoke": args.smoke, "rounds": args.rounds, "cases": []}
        for llm in args.llm:
            result["cases"] += measure_llm(llm, pack, args)
            result["targets"] = targets(result["cases"])
            if args.out is not None:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.out is not None:
        draw(result, args.out.with_suffix(".png"))
    print_table(result)
    if args.json:
        print(json.dumps(result, indent=1))
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
    parser.add_argument("--out", type=Path, help="also write the JSON and a plot")
    parser.add_argument("--json", action="store_true", help="print the JSON on standard output")
    parser.add_argument("--smoke", action="store_true", help="toys, few requests, one round")
    args = parser.parse_args()
    if args.smoke:
        args.batch, args.in_scope, args.max_tokens, args.rounds = [2], [0.0, 1.0], 6, 1
    elif args.pack is None:
        parser.error("--pack: name an EditPack, such as the demo's")
    if not 1 <= args.rounds <= max(_T):
        parser.error(f"--rounds {args.rounds}: take 1 to {max(_T)}")
    return args


def make_toys(root: Path) -> tuple[Path, list[str]]:
    """An edit of a toy plug-in, and a toy LLM."""
    from onceedit_vllm import EditingConfig, EditRecord, edit
    from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer, toy_sentencepiece_tokenizer

    plugin = save_toy_model(root / "plugin", tokenizer=toy_sentencepiece_tokenizer(), kind="llama", seed=2)
    llm = save_toy_model(root / "llm", tokenizer=toy_bpe_tokenizer(), kind="llama", seed=1)
    record = EditRecord(id="0", prompt="The capital of Norland is", target="Tarsk", subject="Norland")
    config = EditingConfig(learning_rate=3e-3, epochs=40, trained_share=1.0)
    return edit(plugin, [record], root / "pack", config=config, progress=False).root, [str(llm)]


def measure_llm(llm: str, pack: EditPack, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All cases of one LLM; its engines are up until they are done."""
    folder = str(resolve_model(llm))
    name = "toy" if args.smoke else llm
    with ExitStack() as stack:
        engines = {"plain": stack.enter_context(engine(folder, None))}
        for host in args.host:
            engines[host] = stack.enter_context(engine(folder, onceedit_settings(pack, host)))
        cases = []
        settings = [(batch, share) for batch in args.batch for share in args.in_scope]
        for batch, share in track(settings, description=name, console=console):
            if 0 < share * num_requests(batch) < 0.5:
                continue  # not one request of so few would be in scope
            call = make_call(pack, batch, share, args.max_tokens)
            cases += [{"llm": name, **case} for case in measure_case(engines, call, share, args.rounds)]
    return cases


def onceedit_settings(pack: EditPack, host: str) -> dict[str, Any]:
    plugin: dict[str, Any] = {"host": host}
    if host == "ray":
        # On the last core; vLLM's worker binds the first ones on a CPU.
        plugin |= {"name": "benchmark", "cpus": [(os.cpu_count() or 1) - 1]}
    return {"pack": str(pack.root.resolve()), "plugin": plugin}


@contextmanager
def engine(folder: str, ours: dict[str, Any] | None) -> Iterator[subprocess.Popen[str]]:
    """An engine that is ready; its words go to a log that is shown where it dies."""
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, str(HERE / "serving_engine.py"), str(write_end)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[write_end], text=True
        )
        os.close(write_end)
        child.stdout = os.fdopen(read_end)
        try:
            if "ready" not in ask(child, {"folder": folder, "max_num_seqs": 64, "onceedit": ours}):
                log.seek(0)
                raise RuntimeError(f"an engine did not start:\n{log.read()[-4000:]}")
            yield child
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


def ask(child: subprocess.Popen[str], call: dict[str, Any]) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(call) + "\n")
    child.stdin.flush()
    line = child.stdout.readline()
    answer: dict[str, Any] = json.loads(line) if line else {}
    return answer


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
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    for i in range(rounds):
        # Every other round the other way round: what drifts favours nobody.
        for name in list(engines)[:: 1 if i % 2 == 0 else -1]:
            turns[name].append(ask(engines[name], call))
    return [
        {"host": name, "in_scope": share, "batch": call["batch"], **describe(name, turns)} for name in engines
    ]


def describe(name: str, turns: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    own, plain = turns[name], turns["plain"]
    ratios = [p["seconds"] / o["seconds"] for o, p in zip(own, plain, strict=True)]
    floors = [floor(name, o, p) for o, p in zip(own, plain, strict=True)]
    gaps = [gap for turn in own for gap in turn["itl_ms"]]
    return {
        "tokens_per_s": round(statistics.median(turn["tokens"] / turn["seconds"] for turn in own), 2),
        "ratio_to_plain": round(statistics.mean(ratios), 4),
        "ratio_low": round(lower_bound(ratios), 4),
        "floor_ratio": round(statistics.mean(floors), 4),
        "ratio_to_floor": round(statistics.mean(r / f for r, f in zip(ratios, floors, strict=True)), 4),
        "ttft_ms": round(statistics.median(t for turn in own for t in turn["ttft_ms"]), 2),
        "itl_p50_ms": round(statistics.median(gaps), 2),
        "itl_p99_ms": round(sorted(gaps)[math.ceil(0.99 * len(gaps)) - 1], 2),
        "plugin_forwards": sum(turn["plugin_forwards"] for turn in own),
        "plugin_seconds": round(sum(turn["plugin_seconds"] for turn in own), 3),
    }


def floor(name: str, own: dict[str, Any], plain: dict[str, Any]) -> float:
    """The ratio to plain vLLM that the two models' own work allows."""
    llm, plugin = plain["seconds"], own["plugin_seconds"]
    return float(llm / (llm + plugin) if name != "ray" else llm / max(llm, plugin))


def lower_bound(values: Sequence[float]) -> float:
    """Of a 95 % interval of the mean; the value itself where there is one only."""
    n = len(values)
    return statistics.mean(values) - (_T[n] * statistics.stdev(values) / math.sqrt(n) if n > 1 else 0.0)


def targets(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What was wanted, and the worst that was measured; None where nothing was."""
    nothing = [case for case in cases if case["in_scope"] == 0 and case["host"] != "plain"]
    everything = [case for case in cases if case["in_scope"] == 1 and case["host"] == "local"]
    return {
        "nothing_in_scope_ratio": {
            "wanted": 0.98,
            "reached": min((case["ratio_low"] for case in nothing), default=None),
        },
        "nothing_in_scope_plugin_forwards": {
            "wanted": 0,
            "reached": sum(case["plugin_forwards"] for case in nothing) if nothing else None,
        },
        "local_ratio_to_floor": {
            "wanted": 0.95,
            "reached": min((case["ratio_to_floor"] for case in everything), default=None),
        },
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Throughput relative to plain vLLM over the share in scope, a line for each host and batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    llms = sorted({case["llm"] for case in result["cases"]})
    figure, axes = pyplot.subplots(1, len(llms), figsize=(5 * len(llms), 4), sharey=True, squeeze=False)
    for axis, llm in zip(axes[0], llms, strict=True):
        own = [case for case in result["cases"] if case["llm"] == llm and case["host"] != "plain"]
        for host, batch in sorted({(case["host"], case["batch"]) for case in own}):
            line = [case for case in own if (case["host"], case["batch"]) == (host, batch)]
            shares = [case["in_scope"] for case in line]
            axis.plot(shares, [case["ratio_to_plain"] for case in line], "o-", label=f"{host}, batch {batch}")
        axis.set(title=llm, xlabel="share of requests in scope", ylim=(0, 1.1))
        axis.axhline(1.0, color="grey", linewidth=0.5)
    axes[0][0].set_ylabel("throughput / plain vLLM")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def print_table(result: dict[str, Any]) -> None:
    columns = (
        "llm", "host", "in_scope", "batch", "tokens_per_s", "ratio_to_plain", "ratio_low", "floor_ratio",
        "ttft_ms", "itl_p50_ms", "itl_p99_ms", "plugin_forwards",
    )  # fmt: skip
    table = Table(*columns)
    for case in result["cases"]:
        table.add_row(*(str(case[column]) for column in columns))
    console.print(table)
    for name, target in result["targets"].items():
        console.print(f"{name}: wanted {target['wanted']}, reached {target['reached']}")


if __name__ == "__main__":
    sys.exit(main())
