"""``onceedit edit``: facts in, EditPack out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import facts_table, give_tables, reserved_stdout
from onceedit_vllm.cli.quiet import quiet_bars
from onceedit_vllm.cli.settings import build_settings
from onceedit_vllm.cli.wordings import wordings_for_edit
from onceedit_vllm.config import EditingConfig, TemplateName

_DEFAULT = EditingConfig()


@guarded
def command(
    plugin: Annotated[str, typer.Option(help="The small model to edit: a name, a folder or a hub id.")],
    edits: Annotated[
        Path,
        typer.Option(
            help="The facts: JSONL, one edit a line (prompt, target, and optionally id, subject, rephrases, "
            "locality), or EasyEdit's ZsRE or CounterFact JSON."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The EditPack folder to write.")],
    unrelated: Annotated[
        Path | None, typer.Option(help="Prompts that must not change; default: a set of the project's own.")
    ] = None,
    wordings: Annotated[
        Path | None, typer.Option(help="Other wordings of the edits, as `onceedit wordings` writes them.")
    ] = None,
    wordings_llm: Annotated[
        str | None,
        typer.Option(metavar="NAME|URL", help="An LLM that writes them first; see `onceedit wordings`."),
    ] = None,
    wordings_out: Annotated[
        Path | None,
        typer.Option(help="Where its texts are kept; default: beside --out. A stopped run goes on there."),
    ] = None,
    template: Annotated[
        TemplateName, typer.Option(help="What the plug-in reads around a prompt.")
    ] = _DEFAULT.template,
    weight_lambda: Annotated[
        float, typer.Option("--lambda", help="Weight of the gate's loss in the joint loss (Eq. 7).")
    ] = _DEFAULT.weight_lambda,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = _DEFAULT.learning_rate,
    epochs: Annotated[int, typer.Option(help="Most passes over the edits.")] = _DEFAULT.epochs,
    seed: Annotated[int, typer.Option(help="Seed of the shuffling and the augmentation.")] = _DEFAULT.seed,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed run stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an EditPack at --out.")] = False,
) -> None:
    """Edit facts once: fine-tune the plug-in on them, teach it its gate, and write an EditPack."""
    from onceedit_vllm.editing.edit import edit

    config = build_settings(
        EditingConfig,
        {
            "template": ("--template", template),
            "weight_lambda": ("--lambda", weight_lambda),
            "learning_rate": ("--lr", lr),
            "epochs": ("--epochs", epochs),
            "seed": ("--seed", seed),
        },
    )
    with reserved_stdout() as answer:
        quiet_bars()
        texts = wordings_for_edit(edits, out, wordings, wordings_llm, wordings_out, overwrite=overwrite)
        pack = edit(
            plugin,
            edits,
            out,
            unrelated=unrelated,
            wordings=texts or (),
            config=config,
            resume=resume,
            overwrite=overwrite,
            progress=True,
        )
        facts = {
            "pack": str(pack.root),
            "edits learnt": f"{pack.report.num_learnt} of {len(pack.edits)}",
            "gate": f"opens at alpha {pack.manifest.threshold:.3f} ({pack.manifest.threshold_reason})",
        }
        give_tables(answer, facts_table("Edited", facts))
