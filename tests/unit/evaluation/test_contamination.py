"""What training can have seen counts for nothing; only that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evaluation.contamination import find_contaminated, ids_of, training_settings
from onceedit_vllm.evaluation.record import Asked, EvalRecord
from onceedit_vllm.pack import EditPack
from onceedit_vllm.wordings.wordings import Wordings
from tests.unit.test_pack import write

EDIT = EditRecord(
    id="a", prompt="The capital of Norland is", target="Tarsk", subject="Norland",
    rephrases=("My atlas of Norland has a star beside the town of",),
)  # fmt: skip
RECORD = EvalRecord(
    id="a", prompt=EDIT.prompt, target=EDIT.target, subject=EDIT.subject,
    questions=(
        Asked(stratum="edit", prompt=EDIT.prompt, answer="Tarsk"),
        Asked(stratum="rephrase", prompt="What is the capital of Norland?", answer="Tarsk"),
        Asked(stratum="rephrase", prompt=EDIT.rephrases[0], answer="Tarsk"),
    ),
)  # fmt: skip


def pack_of(folder: Path, **training: object) -> EditPack:
    written = write(folder / "pack")
    manifest = written.manifest.model_copy(update={"training": {"rounds": 3, **training}})
    return replace(written, manifest=manifest, edits=(EDIT,))


def test_the_bank_can_make_the_one_and_not_the_other(tmp_path: Path) -> None:
    assert find_contaminated([RECORD], pack_of(tmp_path)) == {("a", 1)}


def test_the_packs_own_settings_count(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, train_on_rephrases=True, seed=4)
    assert training_settings(pack).seed == 4
    assert find_contaminated([RECORD], pack) == {("a", 1), ("a", 2)}


def test_what_was_written_for_the_edits_counts(tmp_path: Path) -> None:
    written = Wordings(id="a", asking=EDIT.rephrases)
    pack = replace(pack_of(tmp_path), wordings=(written,))
    assert find_contaminated([RECORD], pack) == {("a", 1), ("a", 2)}


def test_records_keep_their_order() -> None:
    others = [RECORD.model_copy(update={"id": name}) for name in ("c", "b", "a")]
    assert ids_of({("b", 1), ("c", 1), ("c", 2)}, others) == ["c", "b"]
