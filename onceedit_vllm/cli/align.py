"""``onceedit align``: what the relative maps of a pack and an LLM are like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import (
    check_json_target,
    facts_table,
    give_json,
    give_tables,
    reserved_stdout,
    say,
    size_text,
)
from onceedit_vllm.cli.quiet import quiet_bars
from onceedit_vllm.cli.settings import build_settings
from onceedit_vllm.config import AlignmentConfig, MapKind, Matching

_DEFAULT = AlignmentConfig()


@guarded
def command(
    pack: Annotated[Path, typer.Option(help="An EditPack folder.")],
    llm: Annotated[str, typer.Option(help="The LLM to serve: a name, a folder or a hub id.")],
    kind: Annotated[MapKind, typer.Option(help="Kind of the relative maps.")] = _DEFAULT.kind,
    matching: Annotated[
        Matching, typer.Option(help="Anchors: tokens of equal bytes, or (the paper) of equal strings.")
    ] = _DEFAULT.matching,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")] = None,
) -> None:
    """Align a pack with an LLM ahead of serving it; the result is cached, serving finds it there."""
    from onceedit_vllm.alignment.align import align

    check_json_target(json)
    config = build_settings(AlignmentConfig, {"kind": ("--kind", kind), "matching": ("--matching", matching)})
    with reserved_stdout() as answer:
        quiet_bars()
        report = align(pack, llm, config=config, progress=True).report
        for warning in report.warnings:
            say(f"Warning: {warning}", style="yellow")
        if json is not None:
            give_json(report.model_dump(mode="json"), json, answer)
            return
        facts = {
            "anchors": f"{report.num_anchors} (matching {report.matching})",
            "vocabularies": f"plug-in {report.plugin_vocab_size}, LLM {report.llm_vocab_size}",
            "kind": report.kind,
            "round-trip fidelity": f"{report.round_trip_fidelity:.4%}",
            "median self-mass": f"plug-in {report.self_mass_plugin:.3g}, LLM {report.self_mass_llm:.3g}",
            "held in memory": f"{size_text(report.bytes_held)} (dense maps: {size_text(report.bytes_dense)})",
            "cost of this attachment": _cost(report.tflops, report.llm_tokens),
            "cost of the paper's maps": _cost(report.paper_tflops, report.paper_tokens),
            "seconds": f"{report.seconds:.1f}" + (" (from the cache)" if report.from_cache else ""),
        }
        give_tables(answer, facts_table(f"{pack} with {llm}", facts))


def _cost(tflops: float, tokens: float | None) -> str:
    """The same cost twice: as work, and as the number of tokens that the LLM generates for it."""
    work = f"{tflops:.3f} TFLOPs"
    return work if tokens is None else f"{work}, or {tokens:,.0f} tokens of this LLM"
