"""The paper's tables, by packs of public data sets behind real LLMs, with the paper's numbers beside.

    python benchmarks/paper_tables.py measure --data FOLDER --work FOLDER   # hours; goes on where it stood
    python benchmarks/paper_tables.py attach --pack PACK                    # what relative maps cost
    python benchmarks/paper_tables.py tables                                # Markdown, of committed results

`measure` trains a pack of the first records of each set, once, and asks every LLM. What it keeps of a run are
figures, not the set's texts. Questions that training or calibration can generate are in none of the figures.
`attach` builds the relative maps of a pack's plug-in and each LLM, of every kind, from an empty cache.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, get_args

from generation_prompts import by_reading
from outcome import save
from paper_markdown import ATTACHMENTS, RESULTS, read_results, tables
from provenance import provenance

from onceedit_vllm.config import (
    AlignmentConfig,
    Baseline,
    Dataset,
    EditingConfig,
    EvaluationConfig,
    MapKind,
    Protocol,
    ScopeKind,
)
from onceedit_vllm.pack import EditPack

FILES: dict[Dataset, str] = {
    "zsre": "zsre_700.json",
    "counterfact": "counterfact_edit_1000.json",
    "counterfact-relations": "counterfact_aliases_relations.json",
    "qaedit": "qaedit_500.json",
    "halluedit": "hallueditbench_dev.json",
}
PLUGIN = "smollm2-135m"
#: The paper's own way, of which every prompt is fused, takes hours; it is asked for by its name.
BASELINES: tuple[Baseline, ...] = ("llm", "plugin", "lookup", "context", "finetuned")
#: What a result keeps of a report: everything but the questions and answers.
KEPT = ("summary", "strata", "baselines", "finetuning", "contaminated", "left_out", "pack", "settings")


class Run(NamedTuple):
    """One LLM with one pack under one protocol; `ask` records of the pack's, from the first."""

    dataset: Dataset
    edits: int
    plugin: str
    llm: str
    protocol: Protocol
    scope: ScopeKind
    ask: int

    @property
    def pack_name(self) -> str:
        """Of the pack's folder."""
        return f"{self.dataset}-{self.edits}" + ("" if self.plugin == PLUGIN else f"-by-{self.plugin}")

    @property
    def name(self) -> str:
        """Of its files: what differs from the usual is said."""
        name = f"{self.pack_name}-{self.llm}-{self.protocol}"
        name += "" if self.scope == EvaluationConfig.model_fields["scope"].default else f"-{self.scope}"
        return name + ("" if self.ask == self.edits else f"-first-{self.ask}")


def main() -> int:
    args = parse_arguments()
    if args.action == "tables":
        print("\n".join(tables(read_results(args.results))))
    elif args.action == "attach":
        save({**provenance(), "attachments": list(attach(args))}, args.attachments)
    else:
        for run in runs(args):
            save(measure(args, run), args.results / f"{run.name}.json")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["measure", "attach", "tables"])
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--work", type=Path, help="packs and answers are kept here, to go on from")
    parser.add_argument("--pack", type=Path, help="attach: whose plug-in is attached to each LLM")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    parser.add_argument(
        "--attachments", type=Path, default=ATTACHMENTS, help="the result of attach (default: %(default)s)"
    )
    parser.add_argument("--dataset", nargs="+", default=["zsre", "counterfact"], choices=list(FILES))
    parser.add_argument("--edits", type=int, default=100, help="records of each set, from the first")
    parser.add_argument("--ask", type=int, help="ask the questions of so many records only, from the first")
    parser.add_argument("--plugin", default=PLUGIN)
    parser.add_argument("--llm", nargs="+", default=["gemma-3-270m", "smollm2-135m"])
    parser.add_argument("--protocol", nargs="+", default=["natural-stop"], choices=get_args(Protocol))
    parser.add_argument("--scope", nargs="+", default=["subject+weight"], choices=get_args(ScopeKind))
    parser.add_argument("--baseline", nargs="*", default=list(BASELINES), choices=get_args(Baseline))
    args = parser.parse_args()
    if args.action == "measure" and (args.data is None or args.work is None):
        parser.error("measure: name the folder of the data sets (--data) and one to work in (--work)")
    if args.action == "attach" and args.pack is None:
        parser.error("attach: name a pack (--pack)")
    return args


def runs(args: argparse.Namespace) -> Iterator[Run]:
    ask = min(args.ask or args.edits, args.edits)
    for dataset, llm, protocol, scope in product(args.dataset, args.llm, args.protocol, args.scope):
        yield Run(dataset, args.edits, args.plugin, llm, protocol, scope, ask)


def make_pack(args: argparse.Namespace, run: Run) -> EditPack:
    """The pack of a set's first records; trained where it is not there yet."""
    from onceedit_vllm import edit
    from onceedit_vllm.evaluation.datasets import read_records

    out = args.work / run.pack_name
    if out.exists():
        return EditPack.load(out)
    args.work.mkdir(parents=True, exist_ok=True)
    records = read_records(args.data / FILES[run.dataset], run.dataset)[: run.edits]
    edits = [record.as_edit() for record in records]
    return edit(run.plugin, edits, out, config=EditingConfig(), resume=True)


def measure(args: argparse.Namespace, run: Run) -> dict[str, Any]:
    """One LLM with the pack under one protocol."""
    from onceedit_vllm.evaluation.evaluate import evaluate

    pack = make_pack(args, run)
    config = EvaluationConfig(
        dataset=run.dataset,
        protocol=run.protocol,
        scope=run.scope,
        limit=run.ask,
        baselines=tuple(args.baseline),
    )
    out = args.work / f"{run.name}.json"
    report = evaluate(run.llm, pack.root, args.data / FILES[run.dataset], out, config, progress=True)
    found = report.model_dump(mode="json", include=set(KEPT))
    training = pack.manifest.training
    editing = {key: training.get(key) for key in ("seconds", "rounds", "steps", "seed", "compute_dtype")}
    learnt = {"learnt": pack.report.num_learnt}
    if run.dataset == "counterfact-relations":
        found["generation"] = by_reading(report.records)
    return {**provenance(), **run._asdict(), "editing": editing | learnt, **found}


def attach(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What each kind of relative maps costs, for the pack's plug-in and each LLM."""
    from onceedit_vllm import align

    pack = EditPack.load(args.pack)
    for llm, kind in product(args.llm, get_args(MapKind)):
        with tempfile.TemporaryDirectory() as cache:
            report = align(pack, llm, config=AlignmentConfig(kind=kind), cache=Path(cache)).report
        yield {"plugin": pack.manifest.base_model, "llm": llm, **report.model_dump(mode="json")}


if __name__ == "__main__":
    sys.exit(main())
