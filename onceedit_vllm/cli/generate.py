"""``onceedit generate``: answers of a served LLM with a pack's edits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import (
    check_json_target,
    columns_table,
    give_json,
    give_tables,
    plain,
    reserved_stdout,
)
from onceedit_vllm.cli.prompts import collect_prompts
from onceedit_vllm.cli.settings import build_settings
from onceedit_vllm.config import GenerationConfig

if TYPE_CHECKING:
    from onceedit_vllm.runner.offline import Generation

_DEFAULT = GenerationConfig()
_PLAIN_KEYS = ("plain_text", "plain_token_ids")


@guarded
def command(
    pack: Annotated[Path, typer.Option(help="An EditPack folder.")],
    llm: Annotated[str, typer.Option(help="The LLM to serve: a name, a folder or a hub id.")],
    prompt: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A prompt; may be repeated.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='One prompt a line, or .jsonl with {"prompt": ...}, or .json: a list of strings.',
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also ask the LLM without the edits, in an engine of its own.")
    ] = False,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in LLM tokens.")] = _DEFAULT.max_tokens,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = _DEFAULT.temperature,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = _DEFAULT.seed,
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")] = None,
) -> None:
    """Answer prompts with an LLM in vLLM that knows the pack's edits."""
    texts = collect_prompts(prompt or [], prompts)
    check_json_target(json)
    config = build_settings(
        GenerationConfig,
        {
            "max_tokens": ("--max-tokens", max_tokens),
            "temperature": ("--temperature", temperature),
            "seed": ("--seed", seed),
        },
    )
    from onceedit_vllm.runner.offline import generate

    with reserved_stdout() as answer:
        results = generate(pack, llm, texts, compare=compare, **config.model_dump())
        if json is not None:
            give_json([_as_object(result, compare=compare) for result in results], json, answer)
        else:
            give_tables(answer, _as_table(results, compare=compare))


def _as_object(result: Generation, *, compare: bool) -> dict[str, Any]:
    fields = asdict(result)
    return fields if compare else {key: value for key, value in fields.items() if key not in _PLAIN_KEYS}


def _as_table(results: list[Generation], *, compare: bool) -> Table:
    table = columns_table("prompt", *(["without the edits"] if compare else []), "answer", "alpha", "gate")
    for result in results:
        before = [plain(result.plain_text or "")] if compare else []
        table.add_row(plain(result.prompt), *before, plain(result.text), *_decision_cells(result))
    return table


def _decision_cells(result: Generation) -> tuple[str, str]:
    if result.alpha is None:
        return "-", "out of scope"
    return f"{result.alpha:.3f}", "open" if result.gated else "closed"
