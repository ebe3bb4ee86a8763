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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from judging import THRESHOLDS, figures
from living import invented
from outcome import add_output, as_text, save
from paper_tables import FILES
from provenance import provenance
from recipe_table import print_table
from rich.console import Console
from rich.progress import track

from onceedit_vllm import EditingConfig, EditPack, edit
from onceedit_vllm.config import Dataset
from onceedit_vllm.evaluation.contamination import training_settings
from onceedit_vllm.evaluation.datasets import read_records
from onceedit_vllm.evaluation.provenance import machine

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
    print_table(result["trainings"], console)
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


if __name__ == "__main__":
    sys.exit(main())
