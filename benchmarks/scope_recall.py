"""Which prompts of the public data sets name an edit's subject, and what parts of names would change.

    python benchmarks/scope_recall.py --data FOLDER                # a table
    python benchmarks/scope_recall.py --data FOLDER --out FILE     # and the JSON

Only the first stage of the scope, the subjects and what sentences say by their words: no model runs. A
question counts as found where the text names the subject of its own edit, and a prompt that must stay
untouched as hit where it names any edit's at all: such a prompt is not changed by that, it is read by the
plug-in, and the gate decides. Of those found some are ruled out by their words (matching whole names, as
served): wrongly where a question asks for the edit.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outcome import add_output, as_text, save
from paper_tables import FILES
from provenance import provenance
from rich.console import Console
from rich.table import Table

from onceedit_vllm.config import Dataset
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evaluation.datasets import read_records
from onceedit_vllm.evaluation.record import ASKING, EvalRecord
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.scope import SubjectMatcher

#: Words of a name that count as a part of it have at least so many letters.
PART = 4
console = Console(stderr=True, width=120)


def main() -> int:
    args = parse_arguments()
    datasets: list[Dataset] = ["jsonl"] if args.smoke else args.dataset
    cases = []
    for dataset in datasets:
        records = invented() if args.smoke else read_records(args.data / FILES[dataset], dataset)
        cases += measure(dataset, records[: args.edits])
    result = {**provenance(), "smoke": args.smoke, "part_letters": PART, "cases": cases}
    save(result, args.out)
    print_table(cases)
    if args.json:
        print(as_text(result), end="")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--dataset", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--edits", type=int, default=1000, help="records of each set, from the first")
    add_output(parser, "two invented records")
    args = parser.parse_args()
    if args.data is None and not args.smoke:
        parser.error("--data: name the folder of the data sets")
    return args


def invented() -> list[EvalRecord]:
    asked = [
        ("edit", "The capital of Norland is", "Tarsk"),
        ("alias", "The capital of the Norland Republic is", "Tarsk"),
        ("locality", "The capital of Sudland is", None),
    ]
    other = [("edit", "Ada Quill was born in", "Velm"), ("alias", "Professor Quill was born in", "Velm")]
    return [
        EvalRecord.model_validate({
            "id": subject, "prompt": questions[0][1], "target": questions[0][2], "subject": subject,
            "questions": [dict(zip(("stratum", "prompt", "answer"), q, strict=True)) for q in questions],
        })
        for subject, questions in (("Norland", asked), ("Ada Quill", other))
    ]  # fmt: skip


def measure(dataset: Dataset, records: Sequence[EvalRecord]) -> list[dict[str, Any]]:
    """Both ways of matching on one set's questions, by their kind."""
    edits = [record.as_edit() for record in records]
    ways = {"whole names": edits, "parts of names": [with_parts(edit) for edit in edits]}
    cases = []
    for way, known in ways.items():
        matcher = SubjectMatcher(known)
        as_served = way == "whole names"
        doubts = Doubts(known, matcher) if as_served else None
        strata: dict[str, Counter[str]] = defaultdict(Counter)
        for at, record in enumerate(records):
            for question in record.questions:
                named = matcher.find(question.prompt)
                may_ask = doubts.asked(question.prompt) if doubts else named
                is_found, passes = (
                    at in those if question.stratum in ASKING else bool(those) for those in (named, may_ask)
                )
                strata[question.stratum] += Counter(
                    asked=1, named=is_found, ruled_out=is_found and not passes
                )
        found = {kind: share(counts, as_served) for kind, counts in strata.items()}
        cases.append({"dataset": dataset, "edits": len(edits), "matching": way, "strata": found})
    return cases


def share(counts: Counter[str], as_served: bool) -> dict[str, float]:
    """What is kept of a kind's counts: what is ruled out only where names are matched as they are served."""
    kept = ("asked", "named", "ruled_out") if as_served else ("asked", "named")
    return {key: counts[key] for key in kept} | {"share": round(counts["named"] / counts["asked"], 4)}


def with_parts(edit: EditRecord) -> EditRecord:
    """The same edit, also known by the long words of its names."""
    names = (edit.subject or "", *edit.aliases)
    words = {word for name in names for word in name.split() if sum(map(str.isalpha, word)) >= PART}
    return edit.model_copy(update={"aliases": (*edit.aliases, *sorted(words))})


def print_table(cases: Sequence[dict[str, Any]]) -> None:
    table = Table("data set", "matching", "kind of question", "name a subject", "of", "share", "ruled out")
    for case in cases:
        for kind, found in case["strata"].items():
            wanted = kind.replace("_", " ") + ("" if kind in ASKING else " (any edit's)")
            cells = (found["named"], found["asked"], found["share"], found.get("ruled_out", "-"))
            table.add_row(case["dataset"], case["matching"], wanted, *map(str, cells))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
