"""The whole way: edit one small model once, then ask two LLMs served by vLLM.

Run by ``make demo``. Exits with 1 when an edited prompt is wrong on either LLM, or when an unrelated
prompt no longer gets the very tokens that plain vLLM gives.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

# vLLM's start-up log would bury the tables; set VLLM_LOGGING_LEVEL=INFO to see it.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

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

    started = time.monotonic()
    for name in {args.plugin, *args.llm}:
        resolve_model(name)
    console.rule(f"[bold]Editing {args.plugin} once")
    pack = edit(args.plugin, args.edits, args.out / "pack", overwrite=True)
    prompts = collect_prompts(pack, args.unrelated.read_text(encoding="utf-8").splitlines())
    verdicts = [ask(llm, pack, prompts, args.out) for llm in args.llm]
    console.print(f"\nDone in {time.monotonic() - started:.0f} s. Pack and answers: {args.out}/")
    return 0 if all(verdicts) else 1


def collect_prompts(pack: EditPack, unrelated: Iterable[str]) -> list[tuple[str, str, str | None]]:
    """(kind, prompt, wanted answer); neighbours and unrelated prompts want what the LLM says anyway."""
    rows: list[tuple[str, str, str | None]] = [("edit", e.prompt, e.target) for e in pack.edits]
    rows += [("rephrase", prompt, e.target) for e in pack.edits for prompt in e.rephrases]
    rows += [("neighbour", prompt, None) for e in pack.edits for prompt in e.locality]
    return rows + [("unrelated", prompt, None) for prompt in unrelated if prompt.strip()]


def ask(llm: str, pack: EditPack, prompts: list[tuple[str, str, str | None]], out: Path) -> bool:
    """Align, serve, and print what the LLM said before and says now."""
    console.rule(f"[bold]{llm}, served by vLLM with the edits")
    report = align(pack, llm, progress=True).report
    console.print(
        f"{report.num_anchors} anchors, round trip {report.round_trip_fidelity:.2%}, {report.seconds:.1f} s, "
        f"{report.bytes_held / 1e6:.1f} MB held where dense maps take {report.bytes_dense / 1e9:.1f} GB"
    )
    answers = generate(pack.root, llm, [prompt for _, prompt, _ in prompts], compare=True, max_tokens=24)
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


def count(prompts: list[tuple[str, str, str | None]], answers: list[Generation]) -> bool:
    """Print the counts; True when every edit is right and no unrelated prompt changed."""
    labels = {
        "edit": "edits right",
        "rephrase": "rephrases right",
        "neighbour": "neighbours token-identical to plain vLLM",
        "unrelated": "unrelated prompts token-identical to plain vLLM",
    }
    all_right = {}
    for kind, label in labels.items():
        marks = [is_right(a, target) for (k, _, target), a in zip(prompts, answers, strict=True) if k == kind]
        console.print(f"  {sum(marks)} of {len(marks)} {label}")
        all_right[kind] = all(marks)
    return all_right["edit"] and all_right["unrelated"]


if __name__ == "__main__":
    sys.exit(main())
