"""``onceedit edit --pack``: edits added to a pack and removed from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onceedit_vllm.cli.output import facts_table, give_tables, reserved_stdout
from onceedit_vllm.cli.quiet import quiet_bars
from onceedit_vllm.cli.settings import build_settings
from onceedit_vllm.cli.wordings import wordings_for_edit
from onceedit_vllm.config import ConflictPolicy, EditingConfig
from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from onceedit_vllm.pack import EditPack


class Change(NamedTuple):
    """What becomes of a pack."""

    add: Path | None = None
    remove: tuple[str, ...] = ()
    on_conflict: ConflictPolicy = "refuse"
    unlearn: bool = False


class Written(NamedTuple):
    """Where the wordings of edits come from: a file, or an LLM and where its texts are kept."""

    file: Path | None = None
    llm: str | None = None
    kept: Path | None = None


def update(
    pack: Path,
    out: Path,
    change: Change,
    settings: Mapping[str, tuple[str, Any]],
    written: Written,
    *,
    unrelated: Path | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Update a pack with its own settings, but for those that the user gave, and tell what came of it."""
    from onceedit_vllm.pack import EditPack
    from onceedit_vllm.updating.update import settings_of, update_pack

    with reserved_stdout() as answer:
        quiet_bars()
        parent = EditPack.load(pack)
        own = {name: ("the pack's", value) for name, value in settings_of(parent)}
        texts = _texts(change.add, out, written, overwrite)
        made = update_pack(
            parent,
            out,
            add=change.add,
            remove=change.remove,
            on_conflict=change.on_conflict,
            unlearn=change.unlearn,
            unrelated=unrelated,
            wordings=texts or (),
            config=build_settings(EditingConfig, own | dict(settings)),
            resume=resume,
            overwrite=overwrite,
        )
        give_tables(answer, facts_table("Updated", _facts(made)))


def _texts(add: Path | None, out: Path, written: Written, overwrite: bool) -> Path | None:
    if written == Written():
        return None
    if add is None:
        raise BadInputError("--wordings, --wordings-llm: are of edits that are added; give --add too")
    return wordings_for_edit(add, out, *written, overwrite=overwrite)


def _facts(pack: EditPack) -> dict[str, str]:
    step = pack.manifest.training["lineage"][-1]
    removed = pack.report.removed
    facts = {"pack": str(pack.root), "edits learnt": f"{pack.report.num_learnt} of {len(pack.edits)}"}
    if step["added"]:
        facts["added"] = ", ".join(step["added"])
    if removed:
        shut = sum(each.shut for each in removed)
        facts["removed"] = (
            f"{', '.join(each.id for each in removed)}; the gate is shut for {shut} of {len(removed)}"
        )
    if step["requeued"]:
        facts["trained again"] = ", ".join(step["requeued"])
    facts["training"] = f"{step['rounds']} rounds, {step['seconds']} s in all"
    facts["gate"] = f"opens at alpha {pack.manifest.threshold:.3f} ({pack.manifest.threshold_reason})"
    return facts
