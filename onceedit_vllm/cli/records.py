"""``onceedit records``: the edits of a data set, to be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import say
from onceedit_vllm.config import Dataset
from onceedit_vllm.folders import write_file


@guarded
def command(
    data: Annotated[Path, typer.Option(help="The data set's file.")],
    dataset: Annotated[Dataset, typer.Option(help="Which data set it is; jsonl: your own.")],
    out: Annotated[Path, typer.Option(help="JSONL for `onceedit edit --edits`.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Records, from the first; default: all.")] = None,
) -> None:
    """Write the edits of a data set without the questions that judge them, for `onceedit edit`."""
    from onceedit_vllm.evaluation.datasets import read_records

    edits = [record.as_edit() for record in read_records(data, dataset)[:limit]]
    write_file(out, "".join(edit.model_dump_json(exclude_none=True) + "\n" for edit in edits))
    say(f"Wrote {len(edits)} edits to {out}")
