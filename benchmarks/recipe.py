"""What settings of the editing stage do: trainings by set, variant and seed, judged without an LLM.

    python benchmarks/recipe.py --data FOLDER --work FOLDER --variant min_copies=3   # goes on where it stood
    python benchmarks/recipe.py ... --variant min_copies=3 epochs=18,min_copies=10 --seed 0 1 2 --jobs 4

The recipe as it is is always one of the variants. Each training is a process; what came of it is a file in
`--work`, and it is not done again while that is there. Judged is what decides behind an LLM: the subjects,
what sentences say by their words, the gate, and what the plug-in says. Questions that training or calibration
can generate are counted, and in no other figure. Each training names the machine that it was done on, and
times compare only where `--jobs` is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from judging import Judged, judge
from living import invented
from outcome import add_output, as_text, save
from paper_tables import FILES
from provenance import provenance
from rich.console import Console
from rich.progress import track
from rich.table import Table

from onceedit_vllm import EditingConfig, EditPack, edit
from onceedit_vllm.config import Dataset
from onceedit_vllm.edits import normalise
from onceedit_vllm.evaluation.contamination import find_contaminated, training_settings
from onceedit_vllm.evaluation.datasets import read_records
from onceedit_vllm.evaluation.provenance import machine
from onceedit_vllm.evaluation.record import ASKING, Asked, EvalRecord

#: Thresholds beside the pack's own that the figures are given for.
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
AS_IT_IS = "as it is"
console = Console(stderr=True, width=140)


class Training(NamedTuple):
    """One training; `variant` names the settings that differ from the defaults."""

    dataset: Dataset
    edits: int
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        variant = self.variant.replace(" ", "-").replace("=", "-").replace(",", "+")
        return f"{self.dataset}-{self.edits}-{variant}-{self.seed}"

    def config(self) -> EditingConfig:
        """The settings of the training."""
        pairs = [] if self.variant == AS_IT_IS else [part.split("=") for part in self.variant.split(",")]
        return EditingConfig(**{key: json.loads(value) for key, value in pairs} | {"seed": self.seed})


def main() -> int:
    args = parse_arguments()
    if args.one is not None:
        train_and_judge(args, Training(*json.loads(args.one)))
        return 0
    variants = dict.fromkeys((AS_IT_IS, *args.variant))
    trainings = [Training(*each) for each in product(args.dataset, args.edits, variants, args.seed)]
    refuse_others(args, trainings)
    result = {**provenance(), "smoke": args.smoke, "jobs": args.jobs, "thresholds": THRESHOLDS}
    with ThreadPoolExecutor(args.jobs) as pool:
        done = pool.map(lambda training: run(args, training), trainings)
        shown = track(done, "Training", total=len(trainings), console=console)
        ended = list(shown)
    result["failures"] = [name for name, code in ended if code]
    files = [args.work / f"{training.name}.json" for training in trainings]
    result["trainings"] = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    save(result, args.out)
    print_table(result["trainings"])
    if args.json:
        print(as_text(result), end="")
    return 1 if result["failures"] else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--work", type=Path, help="what is done is kept here, to go on from")
    parser.add_argument("--dataset", nargs="+", default=["counterfact-relations"], choices=list(FILES))
    parser.add_argument("--edits", type=int, nargs="+", default=[40], help="records of a set, from the first")
    parser.add_argument("--variant", nargs="*", default=[], help="settings that differ: NAME=VALUE,...")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plugin", default="smollm2-135m")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--keep-packs", action="store_true", help="a quarter of a gigabyte each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    add_output(parser, "a toy, four invented edits, one round")
    args = parser.parse_args()
    if args.work is None or (args.data is None and not args.smoke):
        parser.error("name the folder of the data sets (--data) and one to work in (--work)")
    if args.smoke and args.one is None:
        args.dataset, args.edits, args.seed = ["jsonl"], [4], [0]
        args.variant = args.variant or ["epochs=2"]
    for variant in args.variant:
        try:
            Training("jsonl", 0, variant, 0).config()
        except ValueError as error:
            parser.error(f"--variant {variant!r}: {error}; write NAME=VALUE with commas between, as JSON")
    return args


def refuse_others(args: argparse.Namespace, trainings: Sequence[Training]) -> None:
    """What is there must have been trained of the same plug-in with the same settings."""
    for training in trainings:
        file = args.work / f"{training.name}.json"
        if file.exists():
            there = json.loads(file.read_text(encoding="utf-8"))
            wanted = asked_of(args, training)
            if {key: there.get(key) for key in wanted} != wanted:
                sys.exit(f"{file}: of another plug-in or other settings; name another folder as --work")


def asked_of(args: argparse.Namespace, training: Training) -> dict[str, Any]:
    """What makes a training another one."""
    plugin = "toy" if args.smoke else args.plugin
    return {"plugin": plugin, "settings": training.config().model_dump(mode="json")}


def run(args: argparse.Namespace, training: Training) -> tuple[str, int]:
    """One training in a process of its own, if it is not done; its output is kept beside its result."""
    args.work.mkdir(parents=True, exist_ok=True)
    if (args.work / f"{training.name}.json").exists():
        return training.name, 0
    command = [sys.executable, __file__, "--one", json.dumps(training), "--work", str(args.work)]
    command += ["--data", str(args.data)] if args.data else ["--smoke"]
    command += ["--plugin", args.plugin] + (["--keep-packs"] if args.keep_packs else [])
    threads = {} if args.jobs == 1 else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // args.jobs))}
    with (args.work / f"{training.name}.log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=os.environ | threads, check=False)
    return training.name, done.returncode


def train_and_judge(args: argparse.Namespace, training: Training) -> None:
    known = (
        invented(args) if args.smoke else read_records(args.data / FILES[training.dataset], training.dataset)
    )
    records = known[: training.edits]
    out = args.work / training.name
    if not out.exists():
        edits = [record.as_edit() for record in records]
        edit(args.plugin, edits, out, config=training.config(), resume=True)
    pack = EditPack.load(out)
    if args.plugin != pack.manifest.base_model or training_settings(pack) != training.config():
        sys.exit(f"{out}: a pack of another plug-in or other settings; remove it")
    told = {key: pack.manifest.training[key] for key in ("seconds", "rounds", "steps", "compute_dtype")}
    found = {
        **training._asdict(),
        **asked_of(args, training),
        "training": told,
        "machine": machine(),
        "learnt": pack.report.num_learnt,
        "threshold": pack.manifest.threshold,
        "strata": figures(pack, records),
    }
    save(found, args.work / f"{training.name}.json")
    if not args.keep_packs:
        shutil.rmtree(out)


def figures(pack: EditPack, records: Sequence[EvalRecord]) -> dict[str, Any]:
    """What became of each kind of question."""
    prompts = {normalise(edit.prompt) for edit in pack.edits}
    records = [record.beside(prompts) for record in records]
    known = find_contaminated(records, pack)
    kinds: dict[str, list[tuple[Asked, Judged]]] = defaultdict(list)
    contaminated: dict[str, int] = defaultdict(int)
    asked = [(record, at, question) for record in records for at, question in enumerate(record.questions)]
    wanted = [(q.prompt, record.target if q.stratum in ASKING else None) for record, _, q in asked]
    for (record, at, question), judged in zip(asked, judge(pack, wanted), strict=True):
        if (record.id, at) in known:
            contaminated[question.stratum] += 1
        else:
            kinds[question.stratum].append((question, judged))
    return {
        kind: {"contaminated": contaminated[kind], **counts(kind, [one for _, one in found], pack)}
        for kind, found in kinds.items()
    }


def counts(kind: str, judged: Sequence[Judged], pack: EditPack) -> dict[str, Any]:
    """Of one kind: how many name a subject, may ask, are right; and right at other thresholds."""
    right = {cut: num_right(kind, judged, cut) for cut in (pack.manifest.threshold, *THRESHOLDS)}
    return {
        "n": len(judged),
        "named": sum(one.named for one in judged),
        "may_ask": sum(one.may_ask for one in judged),
        "plugin_right": sum(one.says for one in judged) if kind in ASKING else None,
        "right": right[pack.manifest.threshold],
        "right_at": [right[cut] for cut in THRESHOLDS],
    }


def num_right(kind: str, judged: Sequence[Judged], threshold: float) -> int:
    if kind in ASKING:
        return sum(one.says and one.opens(threshold) for one in judged)
    return sum(not one.opens(threshold) for one in judged)


# --- the table -------------------------------------------------------------------------------


def print_table(trainings: Sequence[dict[str, Any]]) -> None:
    """A line for each set and variant: sums over the seeds, and the range of the seeds."""
    kinds = list(dict.fromkeys(kind for training in trainings for kind in training["strata"]))
    table = Table("set", "edits", "variant", "seeds", "s an edit", "threshold", *kinds)
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for training in trainings:
        groups[training["dataset"], training["edits"], training["variant"]].append(training)
    for (dataset, edits, variant), own in groups.items():
        seconds = ", ".join(f"{each['training']['seconds'] / edits:.1f}" for each in own)
        cuts = ", ".join(f"{each['threshold']:.2f}" for each in own)
        shown = (shares(own, kind) for kind in kinds)
        table.add_row(dataset, str(edits), variant, str(len(own)), seconds, cuts, *shown)
    console.print(table)


def shares(trainings: Sequence[dict[str, Any]], kind: str) -> str:
    found = list(_of_kind(trainings, kind))
    if not found:
        return "-"
    single = " ".join(f"{each['right']}" for each in found)
    return f"{sum(each['right'] for each in found)} of {sum(each['n'] for each in found)} ({single})"


def _of_kind(trainings: Sequence[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    return (training["strata"][kind] for training in trainings if training["strata"].get(kind, {}).get("n"))


if __name__ == "__main__":
    sys.exit(main())
