"""A toy's pack goes on living: edits come and go, and what is said of them is measured again here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from onceedit_vllm.cli.main import app
from onceedit_vllm.editing import augment
from onceedit_vllm.editing.edit import edit
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.folders import sha256_of
from onceedit_vllm.pack import EditPack
from onceedit_vllm.testing import save_toy_model, toy_sentencepiece_tokenizer
from onceedit_vllm.updating.update import settings_of, update_pack
from tests.integration.updating.served import CAPITAL, CHIEF, COLOUR, CONFIG, LANGUAGE, Served
from tests.unit.editing.test_edit import interrupt_after

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> EditPack:
    root = tmp_path_factory.mktemp("updated")
    plugin = save_toy_model(root / "plugin", tokenizer=toy_sentencepiece_tokenizer(), kind="llama", seed=2)
    return edit(plugin, [CAPITAL, CHIEF, LANGUAGE], root / "pack", config=CONFIG, progress=False)


def test_added_edits_are_learnt_beside_the_old_ones(parent: EditPack, tmp_path: Path) -> None:
    made = update_pack(parent, tmp_path / "pack", add=[COLOUR], progress=False)
    assert EditPack.load(made.root) == made
    assert [each.id for each in made.edits] == [each.id for each in made.report.edits] == ["a", "b", "c", "n"]
    served = Served(made)
    for record in made.edits:
        assert served.answer(record.prompt) == record.target
        assert served.opens(record.prompt)
    mine, theirs = made.manifest, parent.manifest
    assert (mine.base_fingerprint, mine.weight_token_id) == (theirs.base_fingerprint, theirs.weight_token_id)
    assert torch.equal(made.base_embeddings(), parent.base_embeddings())
    (step,) = mine.training["lineage"]
    assert step["parent"] == sha256_of(parent.root / "pack.json")
    assert (step["added"], step["removed"]) == (["n"], [])
    assert step["rounds"] == mine.training["rounds"] > 0
    assert settings_of(made) == settings_of(parent) == CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_a_removed_subject_costs_no_training(parent: EditPack, tmp_path: Path) -> None:
    made = update_pack(parent, tmp_path / "pack", remove=["b"], progress=False)
    assert [each.id for each in made.edits] == [each.id for each in made.report.edits] == ["a", "c"]
    (gone,) = EditPack.load(made.root).report.removed
    assert (gone.id, gone.is_read, gone.shut, gone.open_wordings) == ("b", False, True, ())
    before, after = (load_file(pack.model_dir / "model.safetensors") for pack in (parent, made))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert made.manifest.threshold == parent.manifest.threshold
    assert made.manifest.training["lineage"][-1]["rounds"] == 0
    assert not Served(made).opens(CHIEF.prompt)
    assert Served(parent).opens(CHIEF.prompt)


def test_a_removed_edit_whose_subject_stays_is_shut_and_said_to_be(parent: EditPack, tmp_path: Path) -> None:
    made = update_pack(parent, tmp_path / "pack", remove=["c"], unlearn=True, progress=False)
    (gone,) = made.report.removed
    assert (gone.is_read, gone.shut, gone.shut_alone) == (True, True, True)
    served = Served(made)
    assert not served.opens(LANGUAGE.prompt)
    assert [served.opens(record.prompt) for record in made.edits] == [True, True]
    assert [served.answer(record.prompt) for record in made.edits] == ["Tarsk", "Ada Quill"]


def test_a_replaced_edit_says_the_new_answer(parent: EditPack, tmp_path: Path) -> None:
    other = CHIEF.model_copy(update={"target": "Ulf"})
    with pytest.raises(BadInputError, match="edits conflict"):
        update_pack(parent, tmp_path / "pack", add=[other], progress=False)
    made = update_pack(parent, tmp_path / "pack", add=[other], on_conflict="replace", progress=False)
    (gone,) = made.report.removed
    assert gone.superseded_by == "b"
    assert Served(made).answer(CHIEF.prompt) == "Ulf"
    again = update_pack(made, tmp_path / "again", remove=["b"], progress=False)
    assert [step["removed"] for step in again.manifest.training["lineage"]] == [["b"], ["b"]]


def test_forgotten_edits_are_trained_again(
    parent: EditPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parent.report.num_learnt == 3
    monkeypatch.setattr(augment, "LEAST_REPLAYED", 0)
    monkeypatch.setattr(augment, "REPLAYED_PER_NEW", 0)
    made = update_pack(parent, tmp_path / "pack", add=[COLOUR], progress=False)
    requeued = made.manifest.training["lineage"][-1]["requeued"]
    assert {"a", "b", "c"} & set(requeued)
    served = Served(made)
    assert [served.answer(record.prompt) for record in made.edits] == [each.target for each in made.edits]


def test_an_interrupted_update_is_resumed_to_the_same_end(
    parent: EditPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.model_copy(update={"epochs": 3})
    whole = update_pack(parent, tmp_path / "whole", add=[COLOUR], config=config, progress=False)
    with monkeypatch.context() as patched:
        interrupt_after(whole.manifest.training["steps"] - 1, patched)
        with pytest.raises(KeyboardInterrupt):
            update_pack(parent, tmp_path / "cut", add=[COLOUR], config=config, progress=False)
    assert not (tmp_path / "cut").exists()
    with pytest.raises(BadInputError, match="other edits, settings or plug-in"):
        update_pack(
            parent, tmp_path / "cut", add=[COLOUR], remove=["b"], config=config, resume=True, progress=False
        )
    resumed = update_pack(parent, tmp_path / "cut", add=[COLOUR], config=config, resume=True, progress=False)
    expected, found = (load_file(pack.model_dir / "model.safetensors") for pack in (whole, resumed))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not (tmp_path / ".cut.work").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "nothing to do"),
        ({"remove": ["x"]}, "no edit 'x'"),
        ({"remove": ["b"], "config": CONFIG.model_copy(update={"template": "zsre"})}, "template 'answer'"),
        ({"add": [COLOUR.model_copy(update={"prompt": " "})]}, "prompt is blank"),
    ],
)
def test_wrong_updates_are_refused(parent: EditPack, tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        update_pack(parent, tmp_path / "pack", progress=False, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_pack_is_never_changed_in_its_place(parent: EditPack, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(parent.root)
    for place in (parent.root, tmp_path / "link"):
        with pytest.raises(BadInputError, match="is the pack itself"):
            update_pack(parent, place, remove=["b"], overwrite=True, progress=False)


def test_the_command_removes_and_adds(parent: EditPack, tmp_path: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text(json.dumps({"prompt": COLOUR.prompt, "target": "green"}) + "\n", encoding="utf-8")
    given = ["edit", "--pack", str(parent.root), "--out", str(tmp_path / "new")]
    given += ["--remove", "a", "--remove", "b", "--add", str(facts), "--epochs", "1"]
    result = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    made = EditPack.load(tmp_path / "new")
    assert [each.id for each in made.edits] == ["c", "line-1"]
    assert made.manifest.training["learning_rate"] == CONFIG.learning_rate  # the pack's own
    assert made.manifest.training["epochs"] == 1
    assert "a, b; the gate is shut for" in result.stdout
    shown = CliRunner().invoke(app, ["inspect", str(made.root)], env={"COLUMNS": "200"})
    assert "added line-1; removed a, b; 1 rounds" in shown.stdout
