"""The paper's tables, by packs of public data sets behind real LLMs, with the paper's numbers beside.

    python benchmarks/paper_tables.py measure --data FOLDER --work FOLDER   # hours; goes on where it stood
    python benchmarks/paper_tables.py tables                                # Markdown, of committed results

`measure` trains a pack of the first records of each set, once, and asks every LLM. What it keeps of a run are
figures, not the set's texts. `tables` makes Tables 1 and 7 (what is right) and 4 (the time) of what is there.
Questions that training or calibration can generate are in none of the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from outcome import save
from provenance import provenance

from onceedit_vllm.config import Dataset, EditingConfig, EvaluationConfig, Protocol
from onceedit_vllm.pack import EditPack

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "paper"
PAPER = HERE / "data" / "paper_tables.json"
FILES: dict[Dataset, str] = {
    "zsre": "zsre_700.json",
    "counterfact": "counterfact_edit_1000.json",
    "counterfact-relations": "counterfact_aliases_relations.json",
    "qaedit": "qaedit_500.json",
    "halluedit": "hallueditbench_dev.json",
}
BASELINES = ("llm", "plugin", "lookup", "context", "finetuned")
METRICS = ("reliability", "generality", "locality")
#: Shown where a set asks for them; the paper does not.
MORE_METRICS = ("aliases", "same_subject_locality")
#: What a result keeps of a report: everything but the questions and answers.
KEPT = ("summary", "strata", "baselines", "finetuning", "contaminated", "left_out", "pack", "settings")


def main() -> int:
    args = parse_arguments()
    if args.action == "tables":
        print("\n".join(tables(read_results(args.results))))
        return 0
    for dataset in args.dataset:
        pack = make_pack(args, dataset)
        for llm in args.llm:
            for protocol in args.protocol:
                result = measure(args, dataset, pack, llm, protocol)
                save(result, args.results / f"{dataset}-{args.edits}-{llm}-{protocol}.json")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["measure", "tables"])
    parser.add_argument("--data", type=Path, help="the folder of the data sets")
    parser.add_argument("--work", type=Path, help="packs and answers are kept here, to go on from")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    parser.add_argument("--dataset", nargs="+", default=["zsre", "counterfact"], choices=list(FILES))
    parser.add_argument("--edits", type=int, default=100, help="records of each set, from the first")
    parser.add_argument("--plugin", default="smollm2-135m")
    parser.add_argument("--llm", nargs="+", default=["gemma-3-270m", "smollm2-135m"])
    parser.add_argument("--protocol", nargs="+", default=["natural-stop", "teacher-forced"])
    parser.add_argument("--baseline", nargs="*", default=list(BASELINES), choices=BASELINES)
    args = parser.parse_args()
    if args.action == "measure" and (args.data is None or args.work is None):
        parser.error("measure: name the folder of the data sets (--data) and one to work in (--work)")
    return args


def make_pack(args: argparse.Namespace, dataset: Dataset) -> EditPack:
    """The pack of a set's first records; trained where it is not there yet."""
    from onceedit_vllm import edit
    from onceedit_vllm.evaluation.datasets import read_records

    out = args.work / f"{dataset}-{args.edits}"
    if out.exists():
        return EditPack.load(out)
    args.work.mkdir(parents=True, exist_ok=True)
    edits = [record.as_edit() for record in read_records(args.data / FILES[dataset], dataset)[: args.edits]]
    return edit(args.plugin, edits, out, config=EditingConfig(), resume=True)


def measure(
    args: argparse.Namespace, dataset: Dataset, pack: EditPack, llm: str, protocol: Protocol
) -> dict[str, Any]:
    """One LLM with the pack under one protocol."""
    from onceedit_vllm.evaluation.evaluate import evaluate

    config = EvaluationConfig(
        dataset=dataset, protocol=protocol, limit=args.edits, baselines=tuple(args.baseline)
    )
    out = args.work / f"{dataset}-{args.edits}-{llm}-{protocol}.json"
    report = evaluate(llm, pack.root, args.data / FILES[dataset], out, config, progress=True)
    found = report.model_dump(mode="json", include=set(KEPT))
    training = pack.manifest.training
    editing = {key: training.get(key) for key in ("seconds", "rounds", "steps", "seed", "compute_dtype")}
    asked = {"dataset": dataset, "protocol": protocol, "llm": llm, "edits": len(pack.edits)}
    learnt = {"learnt": pack.report.num_learnt}
    return {**provenance(), **asked, "editing": editing | learnt, **found}


def read_results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


# --- tables ----------------------------------------------------------------------------------


def tables(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown lines."""
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    named = {paper[name]["protocol"]: name for name in ("table 1", "table 7")}
    for protocol in (*named, *sorted({result["protocol"] for result in results} - named.keys())):
        for dataset in FILES:
            own = [r for r in results if (r["dataset"], r["protocol"]) == (dataset, protocol)]
            if own:
                name = named.get(protocol, protocol)
                yield from accuracy_table(name, dataset, own, paper.get(name, {}).get(dataset, {}))
    yield from time_table(results, paper["table 4"])


def accuracy_table(
    name: str, dataset: str, own: Sequence[dict[str, Any]], theirs: dict[str, list[float]]
) -> Iterator[str]:
    more = [metric for metric in MORE_METRICS if any(is_asked(result, metric) for result in own)]
    metrics = (*METRICS, *more)
    yield f"\n### {name.capitalize()}: {dataset}, {own[0]['protocol']}\n"
    yield row("", "edits", *(metric.replace("_", " ") for metric in metrics))
    yield row(*["---"] * (len(metrics) + 2))
    for result in own:
        who = f"**{result['llm']} with the pack**"
        yield row(who, result["edits"], *(shown(result["summary"][metric]) for metric in metrics))
        for baseline, figures in result["baselines"].items():
            values = (shown(figures[metric]) for metric in metrics)
            yield row(f"{result['llm']}: {baseline}", result["edits"], *values)
    for who, figures in theirs.items():
        yield row(f"paper: {who}", "1000", *(f"{figure:.2f}" for figure in figures), *["-"] * len(more))


def is_asked(result: dict[str, Any], metric: str) -> bool:
    return bool(result["summary"].get(metric, {}).get("n"))


def shown(figure: dict[str, Any]) -> str:
    """A share, its 95 % interval, and of how many."""
    if figure["value"] is None:
        return "-"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] of {figure['n']}"


def time_table(results: Sequence[dict[str, Any]], paper: dict[str, float]) -> Iterator[str]:
    """Once for all LLMs, beside fine-tuning each of those that were measured."""
    for dataset in sorted({result["dataset"] for result in results}):
        own = {r["llm"]: r for r in results if r["dataset"] == dataset and r["finetuning"]}
        if not own:
            continue
        once = next(iter(own.values()))["editing"]["seconds"]
        each = {llm: result["finetuning"]["seconds"] for llm, result in own.items()}
        yield f"\n### Table 4: {dataset}, seconds\n"
        yield "| | total |\n|---|---|"
        yield row("edited once, for all LLMs", f"{once:.0f}")
        listed = ", ".join(f"{llm} {seconds:.0f}" for llm, seconds in each.items())
        yield row(f"fine-tuned one by one ({listed})", f"{sum(each.values()):.0f}")
    listed = ", ".join(f"{who} {share:g}" for who, share in paper.items())
    yield f"\nThe paper's totals for three LLMs, in units of OnceEdit's: {listed}."


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
