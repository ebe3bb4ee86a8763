"""A toy's gate calibrated anew: the model stays as it is, and served prompts open as it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onceedit_vllm.cli.main import app
from onceedit_vllm.editing.edit import edit
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.folders import sha256_of
from onceedit_vllm.pack import EditPack
from onceedit_vllm.testing import save_toy_model, toy_sentencepiece_tokenizer
from onceedit_vllm.updating.recalibrate import recalibrate
from onceedit_vllm.updating.update import update_pack
from tests.integration.updating.served import CAPITAL, CHIEF, CONFIG, LANGUAGE, Served

pytestmark = pytest.mark.integration

OTHERS = "How many sailors like Norland?\nWho founded Velcorp?\nWho wrote the oldest song?\n"


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> EditPack:
    root = tmp_path_factory.mktemp("calibrated")
    plugin = save_toy_model(root / "plugin", tokenizer=toy_sentencepiece_tokenizer(), kind="llama", seed=2)
    config = CONFIG.model_copy(update={"epochs": 4})
    return edit(plugin, [CAPITAL, CHIEF, LANGUAGE], root / "pack", config=config, progress=False)


def test_without_prompts_the_choice_is_that_of_the_training(parent: EditPack, tmp_path: Path) -> None:
    """The same texts, read with the saved weights: what the training found before it saved them."""
    found = recalibrate(parent, tmp_path / "pack")
    assert found.before == (parent.manifest.threshold, parent.manifest.weight_threshold)
    assert found.pack.manifest.threshold == pytest.approx(parent.manifest.threshold, abs=0.01)
    assert found.pack.report.num_learnt == parent.report.num_learnt
    assert [each.n for each in found.pack.report.gate] == [each.n for each in parent.report.gate]
    assert found.prompts == ()


def test_only_the_manifest_and_the_report_are_others(parent: EditPack, tmp_path: Path) -> None:
    (tmp_path / "others.txt").write_text(OTHERS, encoding="utf-8")
    made = recalibrate(parent, tmp_path / "pack", negatives=tmp_path / "others.txt").pack
    assert EditPack.load(made.root) == made
    mine, theirs = (pack.manifest.files for pack in (made, parent))
    assert {name for name in mine if mine[name] != theirs[name]} == {"report.json"}
    assert sorted(mine) == sorted(theirs)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["pack"]


def test_what_is_said_of_the_users_prompts_is_what_serving_does(parent: EditPack, tmp_path: Path) -> None:
    (tmp_path / "asking.txt").write_text("Norland's capital, please?\nWhat does the place speak?\n")
    (tmp_path / "others.txt").write_text(OTHERS, encoding="utf-8")
    asking, others = tmp_path / "asking.txt", tmp_path / "others.txt"
    found = recalibrate(parent, tmp_path / "pack", positives=asking, negatives=others)
    before, after = Served(parent), Served(found.pack)
    assert len(found.prompts) == 5
    for each in found.prompts:
        assert (each.was_open, each.is_open) == (before.opens(each.prompt), after.opens(each.prompt))
    named = {each.prompt: each.named for each in found.prompts}
    assert named["Norland's capital, please?"] == ("a",)  # of "c" another relation is asked
    assert named["What does the place speak?"] == named["Who wrote the oldest song?"] == ()
    counts = {each.texts: each.n for each in found.pack.report.gate if each.texts.startswith("your")}
    # The nameless question for an edit is in none; who founded Velcorp is not what its edit says.
    assert sorted(counts.values()) == [1, 1, 2]
    assert named["Who founded Velcorp?"] == ()


def test_a_removed_edit_is_looked_at_again(parent: EditPack, tmp_path: Path) -> None:
    smaller = update_pack(parent, tmp_path / "smaller", remove=["c"], progress=False)
    made = recalibrate(smaller, tmp_path / "pack").pack
    (gone,) = made.report.removed
    assert gone.id == "c"
    assert gone.shut is not Served(made).opens(LANGUAGE.prompt)


def test_in_place_and_what_is_refused(parent: EditPack, tmp_path: Path) -> None:
    copy = recalibrate(parent, tmp_path / "pack").pack.root
    model = sha256_of(copy / "model" / "model.safetensors")
    before = (copy / "pack.json").read_bytes()
    both = tmp_path / "both.txt"
    both.write_text("Who founded Velcorp?\n")
    with pytest.raises(BadInputError, match="'who founded velcorp' cannot both ask for an edit and not"):
        recalibrate(copy, None, positives=both, negatives=both)
    with pytest.raises(BadInputError, match=r"no threshold rules out 0\.01% false openings"):
        recalibrate(copy, None, most_false=0.0001)
    with pytest.raises(BadInputError, match="exists; choose another place"):
        recalibrate(parent, copy)
    assert (copy / "pack.json").read_bytes() == before
    assert recalibrate(copy, None, negatives=both).pack.root == copy.resolve()
    assert sha256_of(copy / "model" / "model.safetensors") == model
    assert (copy / "pack.json").read_bytes() != before


def test_the_command_shows_what_changes(parent: EditPack, tmp_path: Path) -> None:
    (tmp_path / "others.txt").write_text(OTHERS, encoding="utf-8")
    arguments = ["calibrate", str(parent.root), "--negatives", str(tmp_path / "others.txt")]
    wide = {"COLUMNS": "200"}
    shown = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "a")], env=wide)
    assert shown.exit_code == 0, shown.output
    for text in ("your other prompts", "of 3 open the gate (before:", "other questions about their subjects"):
        assert text in shown.stdout
    told = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "b"), "--json", "-"], env=wide)
    assert len(json.loads(told.stdout)["prompts"]) == 3
    inspected = CliRunner().invoke(app, ["inspect", str(tmp_path / "b")], env=wide)
    assert "your prompts that name no subject" in inspected.stdout
