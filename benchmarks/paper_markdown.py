"""The paper's tables in Markdown, made of committed results, with the paper's numbers beside."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "paper"
ATTACHMENTS = HERE / "results" / "paper-attachments.json"
#: The sweep over lambda, by `recipe.py`.
LAMBDAS = HERE / "results" / "recipe-lambda-cpu.json"
PAPER = HERE / "data" / "paper_tables.json"

METRICS = ("reliability", "generality", "locality")
#: Shown where a set asks for them; the paper does not.
MORE_METRICS = ("aliases", "same_subject_locality")
#: The LLM with the pack as the paper has it: Table 2's comparison, in no other table.
PAPERS = {"deepen": "every prompt fused, DeePEn's maps", "eq16": "every prompt fused, maps of Eq. 16"}


def read_results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def tables(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Markdown lines."""
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    named = {paper[name]["protocol"]: name for name in ("table 1", "table 7")}
    for protocol in (*named, *sorted({result["protocol"] for result in results} - named.keys())):
        for dataset in dict.fromkeys(result["dataset"] for result in results):
            own = [r for r in results if (r["dataset"], r["protocol"]) == (dataset, protocol)]
            if own:
                name = named.get(protocol, protocol)
                yield from accuracy_table(name, own, paper.get(name, {}).get(dataset, {}))
    yield from ablation_table(results, paper["table 2"])
    yield from models_table(results, paper["table 6"])
    yield from time_table(results, paper["table 4"])
    if ATTACHMENTS.exists():
        yield from cost_table(json.loads(ATTACHMENTS.read_text(encoding="utf-8")), paper["table 5"])
    if LAMBDAS.exists():
        yield from lambda_table(json.loads(LAMBDAS.read_text(encoding="utf-8")), paper["table 8"])


# --- what is right: Tables 1, 3, 6 and 7 -----------------------------------------------------


def accuracy_table(name: str, own: Sequence[dict[str, Any]], theirs: dict[str, list[float]]) -> Iterator[str]:
    more = [metric for metric in MORE_METRICS if any(is_asked(result, metric) for result in own)]
    metrics = (*METRICS, *more)
    yield f"\n### {name.capitalize()}: {own[0]['dataset']}, {own[0]['protocol']}\n"
    yield row("", "edits", *(metric.replace("_", " ") for metric in metrics))
    yield row(*["---"] * (len(metrics) + 2))
    for result in own:
        values = (shown(result["summary"][metric]) for metric in metrics)
        yield row(f"**{title(result)}**", result["edits"], *values)
        for baseline, figures in result["baselines"].items():
            if baseline not in PAPERS:
                values = (shown(figures[metric]) for metric in metrics)
                yield row(f"{result['llm']}: {baseline}", result["edits"], *values)
    for who, figures in theirs.items():
        yield row(f"paper: {who}", "1000", *(f"{figure:.2f}" for figure in figures), *["-"] * len(more))


def models_table(
    results: Sequence[dict[str, Any]], paper: dict[str, dict[str, list[float]]]
) -> Iterator[str]:
    """One pack behind every LLM that was asked as usual: reliability, generality, locality, their mean."""
    for dataset, theirs in paper.items():
        own = [
            r for r in results if (r["dataset"], r["protocol"]) == (dataset, "natural-stop") and is_usual(r)
        ]
        if not own:
            continue
        yield f"\n### Table 6: {dataset}, natural stop\n"
        yield row("", "edits", "Rel.", "Gen.", "Loc.", "Avg.") + "\n" + row(*["---"] * 6)
        for result in own:
            figures = [result["summary"][metric]["value"] for metric in METRICS]
            yield averaged(f"**{result['llm']}**", result["edits"], figures)
        for who, figures in theirs.items():
            yield averaged(f"paper: {who}", 200, figures)


def is_usual(result: dict[str, Any]) -> bool:
    return title(result) == f"{result['llm']} with the pack"


def averaged(who: str, edits: int, figures: Sequence[float | None]) -> str:
    known = [figure for figure in figures if figure is not None]
    mean = sum(known) / len(known) if len(known) == len(figures) else None
    return row(who, edits, *("-" if figure is None else f"{figure:.2f}" for figure in (*figures, mean)))


def title(result: dict[str, Any]) -> str:
    """The LLM, and what was not as usual."""
    said = [f"{result['llm']} with the pack"]
    pack, settings = result.get("pack", {}), result.get("settings", {})
    if pack.get("base_model") not in (None, "smollm2-135m"):
        said.append(f"of the plug-in {pack['base_model']}")
    if settings.get("scope", "subject+weight") != "subject+weight":
        said.append(f"scope={settings['scope']}")
    if result.get("ask", result["edits"]) != result["edits"]:
        said.append(f"asked of {result['ask']} edits")
    return ", ".join(said)


def is_asked(result: dict[str, Any], metric: str) -> bool:
    return bool(result["summary"].get(metric, {}).get("n"))


def shown(figure: dict[str, Any]) -> str:
    """A share, its 95 % interval, and of how many."""
    if figure["value"] is None:
        return "-"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}] of {figure['n']}"


# --- what makes it right: Tables 2 and 8 -----------------------------------------------------


def ablation_table(
    results: Sequence[dict[str, Any]], paper: dict[str, dict[str, list[float]]]
) -> Iterator[str]:
    """The paper's way over two kinds of maps, beside this project's, where both were asked."""
    for result in results:
        ways = [way for way in PAPERS if way in result["baselines"]]
        if not ways:
            continue
        yield f"\n### Table 2: {result['dataset']}, {title(result)}\n"
        yield row("", *METRICS) + "\n" + row(*["---"] * (len(METRICS) + 1))
        for way in ways:
            figures = result["baselines"][way]
            yield row(PAPERS[way], *(shown(figures[metric]) for metric in METRICS))
        yield row("**here**", *(shown(result["summary"][metric]) for metric in METRICS))
        for who, theirs in paper.get(result["dataset"], {}).items():
            yield row(f"paper: {who}", *(f"{figure:.2f}" for figure in theirs))


def lambda_table(sweep: dict[str, Any], paper: dict[str, Any]) -> Iterator[str]:
    """Judged without an LLM; the paper's behind Llama2-7B."""
    for dataset in dict.fromkeys(training["dataset"] for training in sweep["trainings"]):
        own = [training for training in sweep["trainings"] if training["dataset"] == dataset]
        strata = [kind for kind in own[0]["strata"] if any(one["strata"][kind]["n"] for one in own)]
        yield f"\n### Table 8: {dataset}, {own[0]['edits']} edits, lambda\n"
        yield row("lambda", *strata, "paper: Rel., Gen., Loc.")
        yield row(*["---"] * (len(strata) + 2))
        for training in sorted(own, key=lambda one: one["settings"]["weight_lambda"]):
            weight = training["settings"]["weight_lambda"]
            found = (f"{one['right']} of {one['n']}" for one in map(training["strata"].get, strata))
            theirs = paper.get(dataset, {}).get(f"{weight:.2f}", [])
            yield row(f"{weight:.2f}", *found, ", ".join(f"{figure:.2f}" for figure in theirs))


# --- what it costs: Tables 4, 5 and 9 --------------------------------------------------------


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


def cost_table(found: dict[str, Any], paper: dict[str, list[float]]) -> Iterator[str]:
    """What attaching an LLM costs, and the sizes behind it (Table 9)."""
    columns = ("V_l", "V_s", "anchors", "TFLOPs", "tokens of the LLM", "seconds", "MB held", "GB if dense")
    yield "\n### Tables 5 and 9: attaching an LLM, from an empty cache\n"
    yield row("", *columns) + "\n" + row(*["---"] * (len(columns) + 1))
    for one in found["attachments"]:
        sizes = (one["llm_vocab_size"], one["plugin_vocab_size"], one["num_anchors"])
        memory = f"{one['bytes_held'] / 1e6:.0f}", f"{one['bytes_dense'] / 1e9:.1f}"
        cost = f"{one['tflops']:.2f}", f"{one['llm_tokens'] or 0:.0f}", f"{one['seconds']:.1f}"
        yield row(f"{one['plugin']} with {one['llm']}, {one['kind']}", *sizes, *cost, *memory)
    for who, (vocabulary, anchors, tflops, tokens) in paper.items():
        yield row(
            f"paper: {who}", f"{vocabulary:.0f}", 32001, f"{anchors:.0f}", tflops, f"{tokens:.0f}", *"---"
        )


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
