"""What an update of a pack comes to: which edits stay, come and go, and where two of them disagree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from onceedit_vllm.config import ConflictPolicy
from onceedit_vllm.editing.scopes import Scope, make_scopes
from onceedit_vllm.edits import EditRecord, normalise
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.plugin.scope import same_name

#: Ids that reading a file gives to records without one of their own.
_GIVEN_ID = re.compile(r"(?:line|record)-\d+")


class UpdatePlan(NamedTuple):
    """An update, before anything is trained.

    Attributes:
        kept: Edits of the pack that stay, in its order.
        added: New edits, with the ids that they will have.
        removed: Edits of the pack that go.
        superseded: For a removed edit whose question a new one answers: its id, and the new one's.
        notes: For people: what was skipped, kept or renamed, and why.
    """

    kept: tuple[EditRecord, ...]
    added: tuple[EditRecord, ...]
    removed: tuple[EditRecord, ...]
    superseded: dict[str, str]
    notes: tuple[str, ...]

    @property
    def records(self) -> tuple[EditRecord, ...]:
        """The registry to be."""
        return (*self.kept, *self.added)


def plan_update(
    edits: Sequence[EditRecord],
    add: Sequence[EditRecord],
    remove: Sequence[str],
    on_conflict: ConflictPolicy,
    seed: int = 0,
) -> UpdatePlan:
    """Decide what becomes of each edit.

    Two edits conflict where they ask the same of the same subject (see :func:`same_question`) and want
    another answer.

    Args:
        edits: The pack's.
        add: New ones.
        remove: Ids of the pack's that go.
        on_conflict: "refuse" the update, "replace" the pack's edit, or "keep" it and leave the new one out.
        seed: Of the trainings.

    Raises:
        BadInputError: An id is unknown or taken, edits conflict, or nothing would be done or left.
    """
    _refuse_unknown(edits, remove)
    kept = [edit for edit in edits if edit.id not in remove]
    gone = [edit for edit in edits if edit.id in remove]
    _refuse_half_removed(kept, gone, seed)
    _refuse_conflicts_among(add, seed)
    fresh, replaced, notes = _settle(kept, add, on_conflict, seed)
    kept = [edit for edit in kept if edit.id not in replaced]
    added = _with_free_ids(fresh, {edit.id for edit in kept}, notes)
    removed = [edit for edit in edits if edit not in kept]
    if not added and not removed:
        raise BadInputError("; ".join(["there is nothing to do", *notes]) + "; give other edits or ids")
    if not kept and not added:
        raise BadInputError(
            "no edit would be left; serve the LLM without a pack, or add edits in the same call"
        )
    return UpdatePlan(
        tuple(kept), tuple(added), tuple(removed), _find_successors(removed, added, seed), tuple(notes)
    )


def same_question(one: Scope, other: Scope) -> bool:
    """Whether two edits have the same prompt, or ask the same relation of the same subject.

    Relations are the same only where the bank knows both by one name, or where the prompts differ in
    nothing but the subject: where somebody was born and where they live are two facts.
    """
    if normalise(one.record.prompt) == normalise(other.record.prompt):
        return True
    if not any(same_name(mine, theirs) for mine in _names(one) for theirs in _names(other)):
        return False
    if one.relation and other.relation:
        return one.relation.name == other.relation.name
    return one.frame is not None and normalise(one.frame) == normalise(other.frame or "")


def _names(scope: Scope) -> tuple[str, ...]:
    return (scope.record.subject or scope.subject or "", *scope.record.aliases)


def _same_answer(one: EditRecord, other: EditRecord) -> bool:
    return normalise(one.target) == normalise(other.target)


def _show(edit: EditRecord) -> str:
    return f"{edit.id!r} ({edit.prompt!r} -> {edit.target!r})"


# --- refusals --------------------------------------------------------------------------------


def _refuse_unknown(edits: Sequence[EditRecord], remove: Sequence[str]) -> None:
    known = {edit.id for edit in edits}
    unknown = [name for name in dict.fromkeys(remove) if name not in known]
    if unknown:
        names = ", ".join(map(repr, unknown))
        raise BadInputError(f"the pack has no edit {names}; `onceedit inspect` lists the ids that it has")


def _refuse_half_removed(kept: Sequence[EditRecord], gone: Sequence[EditRecord], seed: int) -> None:
    """An edit that stays in another wording would go on answering."""
    pairs = _pairs(gone, kept, seed)
    left = [
        f"{_show(one)} says what {_show(two)} says, which stays"
        for one, two in pairs
        if _same_answer(one, two)
    ]
    if left:
        raise BadInputError("; ".join(left) + "; remove both, or neither")


def _refuse_conflicts_among(add: Sequence[EditRecord], seed: int) -> None:
    pairs = _pairs(add, add, seed)
    wrong = [
        f"{_show(one)} and {_show(two)}"
        for one, two in pairs
        if add.index(one) < add.index(two) and not _same_answer(one, two)
    ]
    if wrong:
        raise BadInputError(
            f"the edits to add conflict with each other: {'; '.join(wrong)}; keep one of each"
        )


def _pairs(
    ones: Sequence[EditRecord], others: Sequence[EditRecord], seed: int
) -> list[tuple[EditRecord, EditRecord]]:
    """Those that ask the same; an edit is no pair with itself."""
    left, right = make_scopes(ones, seed), make_scopes(others, seed)
    return [
        (one.record, two.record)
        for one in left
        for two in right
        if one.record is not two.record and same_question(one, two)
    ]


# --- conflicts with the pack -----------------------------------------------------------------


def _settle(
    kept: Sequence[EditRecord], add: Sequence[EditRecord], on_conflict: ConflictPolicy, seed: int
) -> tuple[list[EditRecord], set[str], list[str]]:
    """The new edits that come, ids of the pack's that go for them, and notes."""
    asked = _pairs(add, kept, seed)
    conflicts = [(new, old) for new, old in asked if not _same_answer(new, old)]
    if conflicts and on_conflict == "refuse":
        shown = "; ".join(f"{_show(new)} against {_show(old)} of the pack" for new, old in conflicts)
        raise BadInputError(
            f"edits conflict: {shown}; remove the pack's edit in the same call, or let conflicts be "
            "resolved: replace the pack's edit (--on-conflict replace), or keep it and leave the new one out "
            "(keep)"
        )
    known = [(new, old) for new, old in asked if _same_answer(new, old) and _same_prompt(new, old)]
    notes = [f"{_show(new)} is in the pack already as {old.id!r}: skipped" for new, old in known]
    left_out = [new for new, _ in known]
    if on_conflict == "keep":
        notes += [f"{_show(new)} is left out: the pack says {_show(old)}" for new, old in conflicts]
        left_out += [new for new, _ in conflicts]
        conflicts = []
    notes += [f"{_show(old)} is replaced by {_show(new)}" for new, old in conflicts]
    return [new for new in add if new not in left_out], {old.id for _, old in conflicts}, notes


def _same_prompt(one: EditRecord, other: EditRecord) -> bool:
    return normalise(one.prompt) == normalise(other.prompt)


def _with_free_ids(fresh: Iterable[EditRecord], taken: set[str], notes: list[str]) -> list[EditRecord]:
    """Ids that reading a file has given are renamed where they are taken; those of the user are refused."""
    added: list[EditRecord] = []
    for edit in fresh:
        name = edit.id
        if name in taken and not _GIVEN_ID.fullmatch(name):
            raise BadInputError(
                f"id {name!r} is taken by another edit of the pack; give {edit.prompt!r} another id, or "
                "remove that edit in the same call"
            )
        number = 2
        while name in taken:
            name, number = f"{edit.id}-{number}", number + 1
        if name != edit.id:
            notes.append(f"{edit.prompt!r} has the id {name!r}: {edit.id!r} is taken")
        taken.add(name)
        added.append(edit if name == edit.id else edit.model_copy(update={"id": name}))
    return added


def _find_successors(removed: Sequence[EditRecord], added: Sequence[EditRecord], seed: int) -> dict[str, str]:
    return {old.id: new.id for old, new in _pairs(removed, added, seed)}
