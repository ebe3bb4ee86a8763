"""A pack that goes on living: edits appended step by step, then some removed, all checked after every step.

    python benchmarks/living.py --data FOLDER --work FOLDER --out FILE  # over an hour; goes on where it stood

The first pack is trained of the first `--each` records, then every step appends as many, and at last one in
ten is removed. After every step each edit that should be there is asked by its prompt and by the set's own
rephrases, which training never sees: the gate must open and the plug-in, decoding greedily, say the target
and stop. So are all that were removed: the gate must be shut. Prompts of the set that must stay untouched
must leave it shut where they name a subject, and are not read where they name none. No LLM is asked: what the
plug-in says behind an open gate is what served LLMs say.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judging import judge
from outcome import add_output, as_text, save
from paper_tables import FILES
from provenance import provenance
from rich.console import Console
from rich.table import Table

from onceedit_vllm import EditingConfig, EditPack, EditRecord, edit
from onceedit_vllm.evaluation.datasets import read_records
from onceedit_vllm.evaluation.record import EvalRecord
from onceedit_vllm.updating.update import update_pack

console = Console(stderr=True, width=120)
#: Of the appended edits one in so many is removed at the end, evenly spread.
REMOVED_ONE_IN = 10


def main() -> int:
    args = parse_arguments()
    records = invented(args) if args.smoke else read_records(args.data / FILES[args.dataset], args.dataset)
    records = records[: args.each * args.steps]
    result: dict[str, Any] = {**provenance(), "smoke": args.smoke, "dataset": args.dataset, "steps": []}
    for number in range(args.steps + 1):
        step, pack = live(args, records, number)
        there = records[: args.each * (number + 1)]
        gone = records[::REMOVED_ONE_IN] if number == args.steps else []
        kept = [record for record in there if record not in gone]
        result["steps"].append({**step, **check(pack, kept, gone, records)})
        save(result, args.out)
    print_table(result["steps"])
    if args.json:
        print(as_text(result), end="")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--work", type=Path, help="the packs are kept here, to go on from")
    parser.add_argument("--dataset", default="zsre", choices=list(FILES))
    parser.add_argument("--plugin", default="smollm2-135m")
    parser.add_argument(
        "--steps", type=int, default=10, help="times that edits are appended, the first included"
    )
    parser.add_argument("--each", type=int, default=20, help="edits appended at a time")
    add_output(parser, "a toy, two steps of two invented edits, one round")
    args = parser.parse_args()
    if args.smoke:
        args.steps, args.each = 2, 2
    if args.work is None or (args.data is None and not args.smoke):
        parser.error("name the folder of the data sets (--data) and one to work in (--work)")
    return args


def invented(args: argparse.Namespace) -> list[EvalRecord]:
    """Four edits; the toy plug-in is made beside them."""
    from onceedit_vllm.testing import save_toy_model

    args.plugin = str(args.work / "toy")
    if not (args.work / "toy").exists():
        save_toy_model(args.work / "toy", tied=True)
    places = ("Norland", "Sudland", "Westmark", "Ostia")
    return [
        EvalRecord.model_validate({
            "id": place, "prompt": f"The capital of {place} is", "target": "Tarsk", "subject": place,
            "questions": [
                {"stratum": "edit", "prompt": f"The capital of {place} is", "answer": "Tarsk"},
                {"stratum": "rephrase", "prompt": f"From where is {place} governed?", "answer": "Tarsk"},
                {"stratum": "locality", "prompt": "Who wrote the oldest song?"},
            ],
        })
        for place in places
    ]  # fmt: skip


def live(
    args: argparse.Namespace, records: Sequence[EvalRecord], number: int
) -> tuple[dict[str, Any], EditPack]:
    """One step of the pack's life; done before, it is not done again."""
    out = args.work / f"step-{number}"
    if not out.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        grow(args, records, number, out)
    pack = EditPack.load(out)
    lineage = pack.manifest.training.get("lineage", ())
    told = lineage[-1] if lineage else pack.manifest.training
    seconds = round(told["seconds"], 1)
    added = len(told["added"]) if lineage else len(pack.edits)
    removed = len(told["removed"]) if lineage else 0
    done = {"added": added, "removed": removed, "requeued": len(told["requeued"]) if lineage else 0}
    rounds = {"rounds": told["rounds"], "optimizer_steps": told["steps"], "seconds": seconds}
    return {"step": number, "edits": len(pack.edits), **done, **rounds}, pack


def grow(args: argparse.Namespace, records: Sequence[EvalRecord], number: int, out: Path) -> None:
    edits: list[EditRecord] = [record.as_edit() for record in records]
    parent = args.work / f"step-{number - 1}"
    config = EditingConfig(epochs=1) if args.smoke else EditingConfig()
    if number == 0:
        edit(args.plugin, edits[: args.each], out, config=config, resume=True)
    elif number == args.steps:
        update_pack(parent, out, remove=[each.id for each in edits[::REMOVED_ONE_IN]], resume=True)
    else:
        new = edits[args.each * number : args.each * (number + 1)]
        update_pack(parent, out, add=new, on_conflict="replace", resume=True)


def check(
    pack: EditPack, kept: Sequence[EvalRecord], gone: Sequence[EvalRecord], everything: Sequence[EvalRecord]
) -> dict[str, Any]:
    """What the gate and the plug-in make of all questions, by their kind: how many are right, of how many."""
    started = time.monotonic()
    asked: list[tuple[str, str, str | None]] = [
        ("edits" if question.stratum == "edit" else "rephrases", question.prompt, record.target)
        for record in kept
        for question in record.questions
        if question.stratum in ("edit", "rephrase")
    ]
    asked += [("removed", record.prompt, None) for record in gone]
    asked += [
        ("untouched", question.prompt, None)
        for record in everything
        for question in record.questions
        if question.stratum in ("locality", "unrelated")
    ]
    judged = judge(pack, [(prompt, target) for _, prompt, target in asked])
    opened = [one.opens(pack.manifest.threshold) for one in judged]
    right = [
        is_open and one.says if target is not None else not is_open
        for one, is_open, (*_, target) in zip(judged, opened, asked, strict=True)
    ]
    kinds = dict.fromkeys(kind for kind, _, _ in asked)
    counts = {
        kind: [
            sum(ok for (k, *_), ok in zip(asked, right, strict=True) if k == kind),
            sum(k == kind for k, *_ in asked),
        ]
        for kind in kinds
    }
    return {
        "learnt": pack.report.num_learnt,
        "right_of": counts,
        "check_s": round(time.monotonic() - started, 1),
    }


def print_table(steps: Sequence[dict[str, Any]]) -> None:
    kinds = ("edits", "rephrases", "untouched", "removed")
    table = Table("step", "edits", "added", "removed", "again", "rounds", "s", "s an edit", "learnt", *kinds)
    for step in steps:
        per = f"{step['seconds'] / step['added']:.1f}" if step["added"] else "-"
        right = [" of ".join(map(str, step["right_of"].get(kind, ["-"]))) for kind in kinds]
        cells = [step[key] for key in ("step", "edits", "added", "removed", "requeued", "rounds", "seconds")]
        table.add_row(*map(str, [*cells, per, step["learnt"], *right]))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
