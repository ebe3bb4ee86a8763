"""What an update comes to, before anything is trained."""

from __future__ import annotations

import pytest

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.updating.plan import UpdatePlan, plan_update

CAPITAL = EditRecord(id="capital", prompt="The capital of Lumora is", target="Port Selwyn", subject="Lumora")
FOUNDER = EditRecord(id="founder", prompt="Who founded Brightfern?", target="Tomas", subject="Brightfern")
PACK = [CAPITAL, FOUNDER]


def record(name: str, prompt: str, target: str, subject: str | None, *aliases: str) -> EditRecord:
    return EditRecord(id=name, prompt=prompt, target=target, subject=subject, aliases=aliases)


NEW = record("mayor", "The mayor of Tarsk is", "Ada Quill", "Tarsk")
OTHER_CAPITAL = record("n", "What is the capital city of Lumora?", "Velm", "LUMORA")


def ids(plan: UpdatePlan) -> tuple[list[str], list[str], list[str]]:
    kept, added, removed = ([edit.id for edit in part] for part in (plan.kept, plan.added, plan.removed))
    return kept, added, removed


def test_edits_come_behind_those_that_stay() -> None:
    plan = plan_update(PACK, [NEW], ["capital"], "refuse")
    assert ids(plan) == (["founder"], ["mayor"], ["capital"])
    assert [edit.id for edit in plan.records] == ["founder", "mayor"]
    assert (plan.superseded, plan.notes) == ({}, ())


def test_a_conflict_is_refused_with_both_edits_and_what_to_do() -> None:
    with pytest.raises(BadInputError) as caught:
        plan_update(PACK, [NEW, OTHER_CAPITAL], [], "refuse")
    message = str(caught.value)
    assert "'n' ('What is the capital city of Lumora?' -> 'Velm')" in message
    assert "'capital' ('The capital of Lumora is' -> 'Port Selwyn')" in message
    assert "--on-conflict replace" in message
    assert "mayor" not in message


def test_a_conflict_replaces_the_packs_edit_or_leaves_the_new_one_out() -> None:
    replaced = plan_update(PACK, [OTHER_CAPITAL], [], "replace")
    assert ids(replaced) == (["founder"], ["n"], ["capital"])
    assert replaced.superseded == {"capital": "n"}
    assert "is replaced by 'n'" in replaced.notes[0]
    kept = plan_update(PACK, [OTHER_CAPITAL, NEW], [], "keep")
    assert ids(kept) == (["capital", "founder"], ["mayor"], [])
    assert "is left out" in kept.notes[0]


def test_removing_the_packs_edit_in_the_same_call_is_no_conflict() -> None:
    plan = plan_update(PACK, [OTHER_CAPITAL], ["capital"], "refuse")
    assert ids(plan) == (["founder"], ["n"], ["capital"])
    assert plan.superseded == {"capital": "n"}


@pytest.mark.parametrize(
    "new",
    [
        record("x", "the capital of  Lumora is:", "Velm", None),  # the prompt itself
        record("x", "Where is the capital of the Republic?", "Velm", "Republic", "Lumora"),  # by an alias
        record("x", "WHO founded brightfern", "Ada", "Brightfern"),
    ],
)
def test_other_spellings_conflict_too(new: EditRecord) -> None:
    with pytest.raises(BadInputError, match="edits conflict"):
        plan_update(PACK, [new], [], "refuse")


@pytest.mark.parametrize(
    "new",
    [
        record("x", "The capital of Lumorania is", "Velm", "Lumorania"),  # another subject
        record("x", "The official language of Lumora is", "Velmish", "Lumora"),  # another relation
        record("x", "What is the capital city of Lumora?", "Port Selwyn", "Lumora"),  # another wording
    ],
)
def test_other_facts_do_not_conflict(new: EditRecord) -> None:
    assert ids(plan_update(PACK, [new], [], "refuse")) == (["capital", "founder"], ["x"], [])


def test_close_relations_are_two_facts() -> None:
    born = record("born", "Ada Quill was born in", "Oslo", "Ada Quill")
    lives = record("lives", "Ada Quill lives in", "Bergen", "Ada Quill")
    assert ids(plan_update([born], [lives], [], "refuse")) == (["born"], ["lives"], [])


def test_what_is_there_already_is_skipped_with_a_note() -> None:
    again = CAPITAL.model_copy(update={"id": "again", "target": "port selwyn."})
    plan = plan_update(PACK, [again, NEW], [], "refuse")
    assert ids(plan) == (["capital", "founder"], ["mayor"], [])
    assert "is in the pack already as 'capital': skipped" in plan.notes[0]
    with pytest.raises(BadInputError, match=r"nothing to do; 'again' .* skipped"):
        plan_update(PACK, [again], [], "refuse")


@pytest.mark.parametrize("policy", ["refuse", "replace", "keep"])
def test_edits_that_conflict_with_each_other_are_refused_in_any_case(policy: str) -> None:
    two = [NEW, record("y", "Who is the mayor of Tarsk?", "Ulf", "Tarsk")]
    with pytest.raises(BadInputError, match=r"conflict with each other: 'mayor' .* and 'y'"):
        plan_update(PACK, two, [], policy)  # type: ignore[arg-type]


def test_unknown_ids_are_named() -> None:
    with pytest.raises(BadInputError, match="no edit 'x', 'y'; `onceedit inspect`"):
        plan_update(PACK, [], ["x", "capital", "y", "x"], "refuse")


def test_the_last_edit_cannot_be_removed() -> None:
    with pytest.raises(BadInputError, match="no edit would be left"):
        plan_update(PACK, [], ["capital", "founder"], "refuse")


def test_an_edit_that_stays_in_another_wording_cannot_be_removed_alone() -> None:
    again = record("again", "What is the capital city of Lumora?", "Port Selwyn", "Lumora")
    with pytest.raises(
        BadInputError, match=r"'capital' .* says what 'again' .* stays; remove both, or neither"
    ):
        plan_update([*PACK, again], [], ["capital"], "refuse")
    assert ids(plan_update([*PACK, again], [], ["capital", "again"], "refuse"))[0] == ["founder"]


def test_ids_of_lines_make_way_and_those_of_the_user_are_refused() -> None:
    pack = [CAPITAL.model_copy(update={"id": "line-1"}), FOUNDER.model_copy(update={"id": "line-1-2"})]
    plan = plan_update(pack, [NEW.model_copy(update={"id": "line-1"})], [], "refuse")
    assert ids(plan)[1] == ["line-1-3"]
    assert "has the id 'line-1-3'" in plan.notes[0]
    with pytest.raises(BadInputError, match="id 'capital' is taken"):
        plan_update(PACK, [NEW.model_copy(update={"id": "capital"})], [], "refuse")
    same_id = OTHER_CAPITAL.model_copy(update={"id": "capital"})
    assert ids(plan_update(PACK, [same_id], [], "replace")) == (["founder"], ["capital"], ["capital"])
