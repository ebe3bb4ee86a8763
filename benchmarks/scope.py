"""What it costs to look for the edits' subjects in a prompt.

    python benchmarks/scope.py                  # a table
    python benchmarks/scope.py --json           # the same as JSON on standard output
    python benchmarks/scope.py --smoke --json   # few subjects and repeats, for CI
    python benchmarks/scope.py --out FILE       # also keep the JSON

Prompts are of 1,000 tokens of SmolLM2 (of a toy tokenizer where that is not cached). Subjects are made of
the names that the package ships. Exits with 1 where a subject that a prompt names is not found.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from provenance import provenance
from rich.console import Console
from rich.table import Table

import onceedit_vllm
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.models import cached_model
from onceedit_vllm.plugin.scope import SubjectMatcher
from onceedit_vllm.runner.scope import PromptScope

SHIPPED = Path(onceedit_vllm.__file__).parent
NUM_TOKENS = 1000
#: Different prompts of each kind, so that no repeat finds what the one before left in the caches.
NUM_PROMPTS = 16
ACCENTS = str.maketrans("aeiouncAEIOU", "áéíóúñçÁÉÍÓÚ")
#: Microseconds that looking may take with 10,000 subjects.
TARGETS = {"ascii": 150, "accented": 600}


def main() -> int:
    args = parse_arguments()
    sizes, repeats = ([10, 100], 20) if args.smoke else ([100, 10_000, 100_000], 2_000)
    tokenizer, name = load()
    prompts = make_prompts(tokenizer)
    cases = [case for size in sizes for case in measure(size, prompts, tokenizer, repeats)]
    missed = [case for case in cases if case["missed"]]
    result = {
        **provenance(),
        "smoke": args.smoke,
        "tokenizer": name,
        "prompt_tokens": NUM_TOKENS,
        "cases": cases,
        "targets": targets(cases),
        "failures": [f"{case['subjects']} subjects, {case['text']}: some were not found" for case in missed],
    }
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1)) if args.json else print_table(result)
    return 1 if missed else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, help="also write JSON here")
    parser.add_argument("--smoke", action="store_true", help="few subjects and repeats")
    return parser.parse_args()


def load() -> tuple[Any, str]:
    folder = cached_model("smollm2-135m")
    if folder is not None:
        return load_tokenizer(folder), "smollm2-135m"
    from onceedit_vllm.testing import toy_bpe_tokenizer

    return toy_bpe_tokenizer(), "toy"


def make_subjects(number: int) -> list[str]:
    """Different invented people, companies, places and reports, one in eight with an accent."""
    names = json.loads((SHIPPED / "wordings/names.json").read_text(encoding="utf-8"))
    rng, made = random.Random(0), dict[str, None]()
    letters = "ABCDEFGHIJKLMNOPRSTVW"
    shapes: list[Callable[[str, str, str], str]] = [
        lambda first, other, last: f"{first} {last}",
        lambda first, other, last: f"{first} {other} {last}",
        lambda first, other, last: f"{first} {rng.choice(letters)}. {rng.choice(letters)}. {last}",
        lambda first, other, last: f"{last} & {rng.choice(names['last'])} {rng.choice(names['thing'])}",
        lambda first, other, last: f"the {last} {rng.choice(names['building'])}",
        lambda first, other, last: f"{other} {rng.choice(names['city'])}",
        lambda first, other, last: f"{rng.randrange(1900, 2030)} {last} {rng.choice(names['thing'])} report",
    ]
    while len(made) < number:
        first, other, last = (rng.choice(names[kind]) for kind in ("first", "first", "last"))
        name = rng.choice(shapes)(first, other, last)
        made[name.translate(ACCENTS) if rng.random() < 1 / 8 else name] = None
    return list(made)


def make_prompts(tokenizer: Any) -> dict[str, list[list[int]]]:
    """Token ids by kind of text: questions and answers of the package, in plain ASCII or with accents."""
    lines = (SHIPPED / "editing/unrelated.jsonl").read_text(encoding="utf-8").splitlines()
    facts = [json.loads(line) for line in lines]
    rng, plain = random.Random(1), list[str]()
    while len(plain) < NUM_PROMPTS:
        said = rng.choices(facts, k=NUM_TOKENS // 4)
        text = " ".join(f"{fact['prompt']} {fact.get('target', '')}." for fact in said)
        plain.append(text.encode("ascii", errors="ignore").decode())
    accented = ["".join(c.translate(ACCENTS) if rng.random() < 0.25 else c for c in text) for text in plain]
    return {
        kind: [tokenizer.encode(text, add_special_tokens=False)[:NUM_TOKENS] for text in texts]
        for kind, texts in (("ascii", plain), ("accented", accented))
    }


def measure(
    size: int, prompts: dict[str, list[list[int]]], tokenizer: Any, repeats: int
) -> Iterator[dict[str, Any]]:
    subjects = make_subjects(size)
    edits = [
        EditRecord(id=str(i), prompt=f"The capital of {subject} is", target="Velm", subject=subject)
        for i, subject in enumerate(subjects)
    ]
    started = time.perf_counter()
    matcher = SubjectMatcher(edits)
    build_ms = 1e3 * (time.perf_counter() - started)
    surface = Surface.of(tokenizer)
    scope = PromptScope(edits, surface, "subject+weight")
    for kind, ids in prompts.items():
        texts = [scope.text_of(prompt) for prompt in ids]
        naming = name_subjects(ids, subjects, tokenizer)
        # What tells an edit's own prompt apart is found out when the edit is first named, of each scope.
        scope = PromptScope(edits, surface, "subject+weight")
        scope.of(naming[-1])
        first_us = microseconds(scope.of, naming[:-1], len(naming) - 1, warm_up=False)
        # Every subject once, inside a prompt: longer names may stand for a shorter one.
        missed = sum(not matcher.find(f"{texts[0][:50]} {subject}'s") for subject in subjects)
        yield {
            "subjects": size,
            "text": kind,
            "characters": statistics.mean(map(len, texts)),
            "build_ms": build_ms,
            "text_us": microseconds(scope.text_of, ids, repeats),
            "find_us": microseconds(matcher.find, texts, repeats),
            "verdict_us": microseconds(scope.of, ids, repeats),
            "first_named_us": first_us,
            "named_us": microseconds(scope.of, naming, repeats),
            "out_of_scope": sum(scope.of(prompt)[0] == "out" for prompt in ids) / len(ids),
            "missed": missed,
        }


def name_subjects(prompts: list[list[int]], subjects: list[str], tokenizer: Any) -> list[list[int]]:
    """The same prompts, each with a question about another subject behind it."""
    asked = (f"\nWhat is the capital of {subject}?" for subject in random.Random(2).sample(subjects, 10))
    return [
        prompt + tokenizer.encode(question, add_special_tokens=False)
        for prompt, question in zip(prompts, asked, strict=False)
    ]


def microseconds(
    work: Callable[[Any], Any], inputs: list[Any], repeats: int, *, warm_up: bool = True
) -> dict[str, float]:
    """Median and 99th percentile of single calls, after one on each input unless there is to be none."""
    for each in inputs if warm_up else ():
        work(each)
    times = []
    for number in range(repeats):
        given = inputs[number % len(inputs)]
        started = time.perf_counter()
        work(given)
        times.append(1e6 * (time.perf_counter() - started))
    return {"median": statistics.median(times), "p99": statistics.quantiles(times, n=100)[98]}


def targets(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Text and search together, against what was wanted."""
    return {
        case["text"]: {
            "wanted_us": TARGETS[case["text"]],
            "verdict_us": case["verdict_us"]["median"],
            "reached": case["verdict_us"]["median"] <= TARGETS[case["text"]],
        }
        for case in cases
        if case["subjects"] == 10_000
    }


def print_table(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['prompt_tokens']} tokens of {result['tokenizer']}, microseconds")
    for column in (
        "subjects",
        "text",
        "characters",
        "tokens to text",
        "search",
        "both",
        "both, p99",
        "one named",
        "first time",
        "build, ms",
    ):
        table.add_column(column, justify="right")
    for case in result["cases"]:
        median = [f"{case[part]['median']:.0f}" for part in ("text_us", "find_us", "verdict_us")]
        table.add_row(
            f"{case['subjects']:,}", case["text"], f"{case['characters']:.0f}", *median,
            f"{case['verdict_us']['p99']:.0f}", f"{case['named_us']['median']:.0f}",
            f"{case['first_named_us']['median']:.0f}", f"{case['build_ms']:.0f}",
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
