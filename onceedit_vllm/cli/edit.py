"""``onceedit edit``: facts in, EditPack out; or a pack in, and another one out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onceedit_vllm.cli.guard import guarded
from onceedit_vllm.cli.output import facts_table, give_tables, reserved_stdout
from onceedit_vllm.cli.quiet import quiet_bars
from onceedit_vllm.cli.settings import build_settings
from onceedit_vllm.cli.update import Change, Written, update
from onceedit_vllm.cli.wordings import wordings_for_edit
from onceedit_vllm.config import ConflictPolicy, EditingConfig, TemplateName
from onceedit_vllm.errors import BadInputError

_DEFAULT = EditingConfig()


@guarded
def command(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="The EditPack folder to write.")],
    plugin: Annotated[
        str | None, typer.Option(help="The small model to edit: a name, a folder or a hub id.")
    ] = None,
    edits: Annotated[
        Path | None,
        typer.Option(
            help="The facts: JSONL, one edit a line (prompt, target, and optionally id, subject, rephrases, "
            "locality), or EasyEdit's ZsRE or CounterFact JSON."
        ),
    ] = None,
    pack: Annotated[
        Path | None, typer.Option(help="Instead of --plugin and --edits: a pack to add to or remove from.")
    ] = None,
    add: Annotated[
        Path | None,
        typer.Option(help="With --pack: facts to add. The old ones are replayed and checked again."),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="With --pack: an edit to remove; may be repeated.")
    ] = None,
    on_conflict: Annotated[
        ConflictPolicy,
        typer.Option(help="With --add: what to do with a fact against which the pack has another answer."),
    ] = "refuse",
    unlearn: Annotated[
        bool, typer.Option("--unlearn", help='With --remove: train for it in any case, for scope="weight".')
    ] = False,
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
    """Edit facts once: fine-tune the plug-in on them, teach it its gate, and write an EditPack.

    With --pack: add facts to a pack, or remove some of its own, and write another pack.
    """
    options = {
        "template": ("--template", template),
        "weight_lambda": ("--lambda", weight_lambda),
        "learning_rate": ("--lr", lr),
        "epochs": ("--epochs", epochs),
        "seed": ("--seed", seed),
    }
    change = Change(add, tuple(remove or ()), on_conflict, unlearn)
    written = Written(wordings, wordings_llm, wordings_out)
    if pack is not None:
        if plugin is not None or edits is not None:
            raise BadInputError(
                "--pack: has its plug-in and edits; leave out --plugin and --edits (use --add)"
            )
        given = {name: options[name] for name in options if _is_given(context, name)}
        update(pack, out, change, given, written, unrelated=unrelated, resume=resume, overwrite=overwrite)
        return
    if plugin is None or edits is None:
        raise BadInputError("--plugin and --edits are needed; or --pack, with --add or --remove")
    if change != Change():
        raise BadInputError("--add, --remove, --on-conflict and --unlearn change a pack; name it with --pack")
    config = build_settings(EditingConfig, options)
    _edit(plugin, edits, out, config, written, unrelated=unrelated, resume=resume, overwrite=overwrite)


def _edit(
    plugin: str,
    edits: Path,
    out: Path,
    config: EditingConfig,
    written: Written,
    *,
    unrelated: Path | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Edit, and say what came of it."""
    from onceedit_vllm.editing.edit import edit

    with reserved_stdout() as answer:
        quiet_bars()
        texts = wordings_for_edit(edits, out, *written, overwrite=overwrite)
        made = edit(
            plugin, edits, out, unrelated=unrelated, wordings=texts or (), config=config,
            resume=resume, overwrite=overwrite, progress=True,
        )  # fmt: skip
        facts = {
            "pack": str(made.root),
            "edits learnt": f"{made.report.num_learnt} of {len(made.edits)}",
            "gate": f"opens at alpha {made.manifest.threshold:.3f} ({made.manifest.threshold_reason})",
        }
        give_tables(answer, facts_table("Edited", facts))


#: Names of the command's own arguments, for the settings that are called otherwise.
_ARGUMENTS = {"learning_rate": "lr"}


def _is_given(context: typer.Context, setting: str) -> bool:
    """Whether the user wrote the option: a pack's own settings stand otherwise."""
    source = context.get_parameter_source(_ARGUMENTS.get(setting, setting))
    return source is not None and source.name == "COMMANDLINE"
