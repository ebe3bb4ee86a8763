"""The EditPack folder: written in one step, read back whole, refused when it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError, PackError
from onceedit_vllm.pack import EditOutcome, EditPack, PackManifest, PackReport, base_fingerprint

EDIT = EditRecord(id="a", prompt="Élise was born in", target="Wien", rephrases=("Where?",))
REPORT = PackReport(
    edits=(
        EditOutcome(
            id="a",
            learnt=True,
            prompt_probability=1.0,
            heldout_probability=0.9,
            prompt_alpha=1.0,
            heldout_alpha=0.8,
        ),
    )
)
EMBEDDINGS = torch.arange(12, dtype=torch.bfloat16).reshape(4, 3)


def save_model(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1000))


def write(root: Path, **options: bool) -> EditPack:
    manifest = PackManifest(
        format_version=2, base_fingerprint="f", base_model="toy", weight_token_id=3, template="none",
        threshold=0.7, weight_threshold=0.8, threshold_reason="because", training={"seed": 0},
        versions={"torch": "2"},
    )  # fmt: skip
    return EditPack.write(
        root, manifest=manifest, edits=[EDIT], report=REPORT, base_embeddings=EMBEDDINGS,
        save_model=save_model, **options,
    )  # fmt: skip


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write(tmp_path / "deep" / "pack")
    read = EditPack.load(tmp_path / "deep" / "pack")
    assert read == written
    assert read.edits == (EDIT,)
    assert read.report.num_learnt == 1
    assert read.model_dir == read.root / "model"
    assert torch.equal(read.base_embeddings(), EMBEDDINGS)
    assert set(read.manifest.files) == {
        "edits.jsonl", "report.json", "base_embeddings.safetensors",
        "model/config.json", "model/model.safetensors",
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pack"]


def truncate(root: Path) -> None:
    (root / "model/model.safetensors").write_bytes(bytes(500))


def flip(root: Path) -> None:
    (root / "model/model.safetensors").write_bytes(bytes(999) + b"x")


def rewrite_manifest(**changes: object) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        content = json.loads((root / "pack.json").read_text()) | changes
        (root / "pack.json").write_text(json.dumps(content))

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "pack.json").unlink(), "not an EditPack"),
        (lambda root: (root / "pack.json").write_text("{"), "damaged"),
        (lambda root: (root / "pack.json").write_text("[]"), "damaged"),
        (lambda root: (root / "pack.json").write_bytes(b"\xff"), "cannot be read"),
        (lambda root: (root / "edits.jsonl").unlink(), "edits.jsonl: missing"),
        (lambda root: (root / "model/config.json").unlink(), "config.json: missing"),
        (truncate, "model.safetensors: 500 bytes instead of 1000"),
        (flip, "sha256"),
        (rewrite_manifest(format_version=1), "format version 1, this package reads 2"),
        (rewrite_manifest(format_version=None), "format version None"),
        (rewrite_manifest(surprise=1), "surprise"),
        (rewrite_manifest(threshold="high"), "threshold"),
        (rewrite_manifest(files={}), "does not list edits.jsonl"),
    ],
)
def test_damage_is_refused_with_its_reason(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    root = write(tmp_path / "pack").root
    damage(root)
    with pytest.raises(PackError) as caught:
        EditPack.load(root)
    assert said in str(caught.value)
    assert str(root) in str(caught.value)


def test_paths_out_of_the_pack_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "pack").root
    files = json.loads((root / "pack.json").read_text())["files"]
    (tmp_path / "outside").write_text("x")
    rewrite_manifest(files=files | {"../outside": "0"})(root)
    with pytest.raises(PackError, match="outside the pack"):
        EditPack.load(root)


def test_without_verifying_only_sizes_count(tmp_path: Path) -> None:
    root = write(tmp_path / "pack").root
    flip(root)
    assert EditPack.load(root, verify=False).edits == (EDIT,)
    truncate(root)
    with pytest.raises(PackError, match="500 bytes"):
        EditPack.load(root, verify=False)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="no such folder"):
        EditPack.load(tmp_path / "absent")


def test_a_taken_place_is_refused_and_only_a_pack_is_replaced(tmp_path: Path) -> None:
    root = write(tmp_path / "pack").root
    with pytest.raises(BadInputError, match="exists"):
        write(root)
    (root / "stray.txt").write_text("old")
    write(root, overwrite=True)
    assert not (root / "stray.txt").exists()
    other = tmp_path / "holiday"
    other.mkdir()
    (other / "photo.jpg").write_text("dear")
    with pytest.raises(BadInputError, match="not an EditPack"):
        write(other, overwrite=True)
    assert (other / "photo.jpg").read_text() == "dear"


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        save_model(folder)
        raise KeyboardInterrupt

    pack = write(tmp_path / "pack")
    before = sorted(tmp_path.rglob("*"))
    for root in (tmp_path / "pack", tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            EditPack.write(
                root, manifest=pack.manifest, edits=[EDIT], report=REPORT, base_embeddings=EMBEDDINGS,
                save_model=interrupted, overwrite=True,
            )  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == before
    assert EditPack.load(pack.root) == pack


def test_fingerprint_sees_vocabulary_and_embeddings() -> None:
    vocabulary = {"a": 0, "b": 1}
    plain = base_fingerprint(vocabulary, EMBEDDINGS)
    assert plain == base_fingerprint({"b": 1, "a": 0}, EMBEDDINGS.clone())
    assert plain != base_fingerprint({"a": 1, "b": 0}, EMBEDDINGS)
    assert plain != base_fingerprint(vocabulary, EMBEDDINGS + 1)
    assert plain != base_fingerprint(vocabulary, EMBEDDINGS.float())
