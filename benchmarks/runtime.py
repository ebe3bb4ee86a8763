"""What the plug-in's runtime costs, beside transformers' own generation and beside itself done otherwise.

    python benchmarks/runtime.py                  # a table
    python benchmarks/runtime.py --json           # the same as JSON on standard output
    python benchmarks/runtime.py --smoke --json   # a toy model and few repeats, for CI
    python benchmarks/runtime.py --out FILE       # also keep the JSON

The plug-in is SmolLM2-135M-Instruct. Both sides of a comparison take turns, so that another load on the
machine meets both; `ratio` is the median over the turns of one side by the other. Exits with 1 where two
sides that must agree do not.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch
from provenance import provenance
from rich.console import Console
from rich.table import Table

from onceedit_vllm.models import resolve_model
from onceedit_vllm.plugin.batching import BatchCost
from onceedit_vllm.plugin.runtime import PlugInRuntime, PlugInStep

MODEL = "smollm2-135m"
#: One side of a comparison: milliseconds of each step of one turn.
Turn = Callable[[], list[float]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    turns: int
    steps: int
    history: int
    batches: tuple[int, ...]
    growth: tuple[tuple[int, int], ...]
    mixes: tuple[tuple[int, ...], ...]
    answer: int


FULL = Sizes(
    turns=3,
    steps=8,
    history=200,
    batches=(1, 8),
    growth=((1, 40), (1, 512), (8, 40), (8, 512), (32, 40), (32, 200)),
    mixes=((40,) * 7 + (512,), (40,) * 7 + (1500,), (150, 160, 170, 180) * 2),
    answer=8,
)
SMOKE = Sizes(
    turns=1, steps=3, history=40, batches=(2,), growth=((2, 20),), mixes=((4, 4, 60),), answer=3
)  # fmt: skip


def main() -> int:
    args = parse_arguments()
    sizes = SMOKE if args.smoke else FULL
    model = load(args.smoke, torch.float32)
    result: dict[str, Any] = {
        **provenance(),
        "smoke": args.smoke,
        "model": "toy" if args.smoke else MODEL,
        "dtype": "float32",
        "decode": [against_transformers(model, rows, sizes) for rows in sizes.batches],
        "grouping": [grouping(model, mix, sizes) for mix in sizes.mixes],
        "prefix": prefix(model, 8, sizes),
        "growth": [growth(model, rows, history, sizes) for rows, history in sizes.growth],
        "bfloat16": bfloat16(model, load(args.smoke, torch.bfloat16), sizes),
    }
    result["failures"] = failures(result)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1)) if args.json else print_tables(result)
    return 1 if result["failures"] else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, help="also write JSON here")
    parser.add_argument("--smoke", action="store_true", help="a toy model and few repeats")
    return parser.parse_args()


def load(is_smoke: bool, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if is_smoke:
        from onceedit_vllm.testing import toy_causal_lm

        model: Any = toy_causal_lm(200)
    else:
        model = AutoModelForCausalLM.from_pretrained(resolve_model(MODEL), dtype=dtype)
    return model.to(device, dtype)


def runtime_of(model: Any, **options: Any) -> PlugInRuntime:
    return PlugInRuntime(model, model.config.vocab_size - 1, 2048, kv_cache_bytes=3 * 2**29, **options)


def texts_of(model: Any, lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Random tokens, different in every text."""
    rng = random.Random(seed)
    return [[rng.randrange(3, model.config.vocab_size - 1) for _ in range(length)] for length in lengths]


def decode(runtime: PlugInRuntime, texts: Sequence[list[int]], steps: int) -> tuple[list[float], Any]:
    """Milliseconds of each greedy step behind some texts, and the tokens, step by step."""
    slots = [runtime.open() for _ in texts]
    reads = [PlugInStep(slot, 0, text) for slot, text in zip(slots, texts, strict=True)]
    tokens = [runtime.step(reads).log_probs.argmax(-1).tolist()]
    times = []
    for _ in range(steps):
        reads = [PlugInStep(slot, 0, [token]) for slot, token in zip(slots, tokens[-1], strict=True)]
        started = time.perf_counter()
        tokens.append(runtime.step(reads).log_probs.argmax(-1).tolist())
        times.append(1e3 * (time.perf_counter() - started))
    for slot in slots:
        runtime.close(slot)
    return times, tokens


def compare(sides: dict[str, Turn], turns: int) -> dict[str, Any]:
    """Both sides in turns; the first of them to warm up."""
    for turn in sides.values():
        turn()
    taken: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, turn in sides.items():
            taken[name].append(turn())
    first, second = (list(map(statistics.median, taken[name])) for name in sides)
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    steps = {name: list(chain.from_iterable(taken[name])) for name in sides}
    return {
        **{f"{name}_ms": statistics.median(steps[name]) for name in sides},
        **{f"{name}_best_ms": min(steps[name]) for name in sides},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def against_transformers(model: Any, rows: int, sizes: Sizes) -> dict[str, Any]:
    """A greedy step of `generate` and one of ours, on equal texts of equal length."""
    texts = texts_of(model, [sizes.history] * rows)
    ids = torch.tensor(texts, device=model.device)
    runtime, tokens = runtime_of(model), dict[str, Any]()

    def ours() -> list[float]:
        times, tokens["ours"] = decode(runtime, texts, sizes.steps)
        return times

    def theirs() -> list[float]:
        times, tokens["theirs"] = generate(model, ids, sizes.steps)
        return times

    taken = compare({"ours": ours, "transformers": theirs}, sizes.turns)
    is_equal = tokens["ours"] == tokens["theirs"]
    return {"rows": rows, "history": sizes.history, **taken, "tokens_equal": is_equal}


def generate(model: Any, ids: torch.Tensor, steps: int) -> tuple[list[float], Any]:
    """Milliseconds from one choice of tokens to the next in transformers' own loop, and the tokens.

    The plug-in's [WEIGHT] token, the last one, is never chosen, as by the runtime.
    """
    from transformers import LogitsProcessor, LogitsProcessorList

    moments = []

    class Clock(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            moments.append(time.perf_counter())
            scores[:, -1] = -torch.inf
            return scores

    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    answers = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=steps + 1,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        logits_processor=LogitsProcessorList([Clock()]),
    )
    model.set_attn_implementation(before)
    times = [1e3 * (after - before) for before, after in pairwise(moments)]
    return times, answers[:, ids.shape[1] :].T.tolist()


def grouping(model: Any, mix: Sequence[int], sizes: Sizes) -> dict[str, Any]:
    """One token each behind histories of these lengths: parted as the runtime does, and all together."""
    texts, tokens = texts_of(model, mix), dict[str, Any]()
    parted, together = runtime_of(model), runtime_of(model)
    together.batch_cost = BatchCost(per_pass=float("inf"), per_column=0.0)

    def turn(name: str, runtime: PlugInRuntime) -> Turn:
        def timed() -> list[float]:
            times, tokens[name] = decode(runtime, texts, sizes.steps)
            return times

        return timed

    taken = compare({"parted": turn("parted", parted), "together": turn("together", together)}, sizes.turns)
    histories = {str(length): mix.count(length) for length in sorted(set(mix))}
    return {"histories": histories, **taken, "tokens_equal": tokens["parted"] == tokens["together"]}


def prefix(model: Any, samples: int, sizes: Sizes) -> dict[str, Any]:
    """So many samples of one prompt, opened in one step, with and without shared prefixes."""
    tokens, counts = dict[str, list[Any]](), dict[str, Any]()

    def turn(name: str, shares: bool) -> Turn:
        runtime = runtime_of(model, share_prefixes=shares)
        tokens[name] = []

        def timed() -> list[float]:
            prompt = texts_of(model, [sizes.history], seed=len(tokens[name]))[0]  # new in every turn
            counted = runtime.num_read_tokens, runtime.num_reused_tokens()
            reads = [PlugInStep(runtime.open(), 0, prompt) for _ in range(samples)]
            started = time.perf_counter()
            tokens[name].append(runtime.step(reads).log_probs.argmax(-1).tolist())
            taken = 1e3 * (time.perf_counter() - started)
            counts[name] = {
                "read": runtime.num_read_tokens - counted[0],
                "reused": runtime.num_reused_tokens() - counted[1],
            }
            return [taken]

        return timed

    taken = compare({"shared": turn("shared", True), "alone": turn("alone", False)}, sizes.turns)
    is_equal = tokens["shared"] == tokens["alone"]
    return {"samples": samples, "prompt": sizes.history, **taken, "tokens": counts, "tokens_equal": is_equal}


def growth(model: Any, rows: int, history: int, sizes: Sizes) -> dict[str, Any]:
    """A step by batch and history."""
    times, _ = decode(runtime_of(model), texts_of(model, [history] * rows), sizes.steps)
    return {"rows": rows, "history": history, "median_ms": statistics.median(times), "best_ms": min(times)}


def bfloat16(model: Any, narrow: Any, sizes: Sizes) -> dict[str, Any]:
    """The same answers in bfloat16: how many of the first tokens agree, and what a step takes."""
    texts = prompts_of(model)
    wide_ms, wide = decode(runtime_of(model), texts, sizes.answer)
    narrow_ms, given = decode(runtime_of(narrow), texts, sizes.answer)
    answers = list(zip(zip(*wide, strict=True), zip(*given, strict=True), strict=True))
    agreeing = [
        next((i for i, pair in enumerate(zip(*both, strict=True)) if pair[0] != pair[1]), len(both[0]))
        for both in answers
    ]
    return {
        "prompts": len(texts),
        "answer_tokens": len(wide),
        "equal_first_tokens": sum(agreed > 0 for agreed in agreeing),
        "equal_answers": sum(agreed == len(wide) for agreed in agreeing),
        "agreeing_until": agreeing,
        "float32_ms": statistics.median(wide_ms),
        "bfloat16_ms": statistics.median(narrow_ms),
    }


def prompts_of(model: Any) -> list[list[int]]:
    """Plain questions, or random tokens for the toy."""
    if model.config.vocab_size < 1000:
        return texts_of(model, [10, 12])
    from onceedit_vllm.alignment.tokenizer_files import load_tokenizer

    tokenizer: Any = load_tokenizer(resolve_model(MODEL))
    subjects = ("France", "Japan", "Egypt", "Brazil", "Canada", "Italy", "Kenya", "Norway")
    shapes = ("The capital of {} is", "The currency of {} is called", "People in {} mostly speak")
    return [tokenizer.encode(shape.format(subject)) for shape in shapes for subject in subjects]


def failures(result: dict[str, Any]) -> list[str]:
    """Sides that must agree and do not. bfloat16 may differ: how much is the result."""
    cases = [(name, case) for name in ("decode", "grouping") for case in result[name]]
    cases.append(("prefix", result["prefix"]))
    return [f"{name}: other tokens in {json.dumps(case)}" for name, case in cases if not case["tokens_equal"]]


def print_tables(result: dict[str, Any]) -> None:
    rows = [
        (f"{case['rows']} rows behind {case['history']}", "transformers", case, "ours", "transformers")
        for case in result["decode"]
    ]
    rows += [
        (f"histories {case['histories']}", "all in one pass", case, "parted", "together")
        for case in result["grouping"]
    ]
    case = result["prefix"]
    rows.append((f"{case['samples']} samples of {case['prompt']}", "each alone", case, "shared", "alone"))
    table = Table("step", "ours, ms", "beside", "ms", "ratio", title="The plug-in's runtime")
    for step, beside, case, ours, other in rows:
        ratio = f"{case['ratio']:.2f}"
        table.add_row(step, f"{case[f'{ours}_ms']:.0f}", beside, f"{case[f'{other}_ms']:.0f}", ratio)
    for case in result["growth"]:
        table.add_row(f"{case['rows']} rows behind {case['history']}", f"{case['median_ms']:.0f}")
    Console(width=120).print(table)
    Console(width=120).print(result["bfloat16"])


if __name__ == "__main__":
    sys.exit(main())
