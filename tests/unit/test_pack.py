"""The EditPack folder: written in one step, read back whole, refused when it is not."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError, PackError
from onceedit_vllm.pack import EditOutcome, EditPack, PackManifest, PackReport, base_fingerprint
from onceedit_vllm.wordings.wordings import Wordings

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


def write(root: Path, *, save: Callable[[Path], None] = save_model, overwrite: bool = False) -> EditPack:
    manifest = PackManifest(
        format_version=2, base_fingerprint="f", base_model="toy", weight_token_id=3, template="none",
        threshold=0.7, weight_threshold=0.8, threshold_reason="because", training={"seed": 0},
        versions={"torch": "2"},
    )  # fmt: skip
    return EditPack.write(
        root, manifest=manifest, edits=[EDIT], report=REPORT, base_embeddings=EMBEDDINGS,
        save_model=save, overwrite=overwrite,
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


def test_written_wordings_travel_with_the_pack(tmp_path: Path) -> None:
    lines = (Wordings(id="a", asking=("Élise: born where?",), dropped={"x": 2}), Wordings(id="b"))
    plain = write(tmp_path / "plain")
    written = EditPack.write(
        tmp_path / "pack", manifest=plain.manifest, edits=[EDIT], report=REPORT, base_embeddings=EMBEDDINGS,
        save_model=save_model, wordings=lines,
    )  # fmt: skip
    assert plain.wordings == ()
    assert EditPack.load(tmp_path / "pack") == written
    assert written.wordings == lines
    assert written.manifest.files.keys() - plain.manifest.files.keys() == {"wordings.jsonl"}
    (tmp_path / "pack" / "wordings.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(PackError, match=r"wordings\.jsonl"):
        EditPack.load(tmp_path / "pack")


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


def listed(root: Path, name: str, content: bytes | str) -> None:
    """A file that the manifest lists, as only the maker of a pack can."""
    data = content.encode() if isinstance(content, str) else content
    (root / name).write_bytes(data)
    manifest = json.loads((root / "pack.json").read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    manifest["sizes"][name] = len(data)
    (root / "pack.json").write_text(json.dumps(manifest))


def link_file(root: Path, *, outside: bool) -> None:
    place = root.parent if outside else root / "model"
    (root / "model/config.json").rename(place / "elsewhere.json")
    (root / "model/config.json").symlink_to(place / "elsewhere.json")


def link_folder(root: Path) -> None:
    (root / "model").rename(root.parent / "elsewhere")
    (root / "model").symlink_to(root.parent / "elsewhere")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (
            lambda root: (root / "model/pytorch_model.bin").write_bytes(b""),
            "model/pytorch_model.bin: the pack's",
        ),
        (lambda root: (root / "model/modeling_x.py").write_text(""), "model/modeling_x.py: the pack's"),
        (
            lambda root: (root / "model/adapter_config.json").write_text("{}"),
            "model/adapter_config.json: the",
        ),
        (lambda root: (root / "model/a.safetensors").write_bytes(b""), "model/a.safetensors: the pack's"),
        (lambda root: (root / "model/.hidden").write_text(""), "model/.hidden: the pack's"),
        (lambda root: (root / "stray.txt").write_text(""), "stray.txt: the pack's manifest does not list it"),
        (lambda root: os.mkfifo(root / "model/pipe"), "model/pipe: the pack's manifest does not list it"),
        (lambda root: (root / "model/link").symlink_to("/etc/hostname"), "model/link: is a link"),
        (lambda root: (root / "model/link").symlink_to("/etc"), "model/link: is a link"),
        (lambda root: (root / "model/link").symlink_to("/nowhere"), "model/link: is a link"),
        (lambda root: link_file(root, outside=True), "model/config.json: is a link"),
        (lambda root: link_file(root, outside=False), "model/config.json: is a link"),
        (link_folder, "model: is a link"),
        (
            lambda root: listed(root, "model/pytorch_model.bin", b"x"),
            "pytorch_model.bin: a pack holds no such",
        ),
        (lambda root: listed(root, "model/modeling_x.py", "1"), "modeling_x.py: a pack holds no such file"),
        (
            lambda root: listed(root, "model/adapter_config.json", "{}"),
            "adapter_config.json: a pack holds no",
        ),
        (
            lambda root: listed(root, "model/config.json", '{"auto_map": {"AutoConfig": "x.Y"}}'),
            "model/config.json: auto_map names code",
        ),
        (
            lambda root: listed(root, "model/config.json", '{"text_config": [{"auto_map": {}}]}'),
            "model/config.json: auto_map names code",
        ),
        (
            lambda root: listed(root, "model/tokenizer_config.json", '{"auto_map": ["x.Y", null]}'),
            "model/tokenizer_config.json: auto_map names code",
        ),
        (
            lambda root: listed(root, "model/config.json", '{"attn_implementation": "someone/kernel"}'),
            "attn_implementation names code",
        ),
        (lambda root: listed(root, "model/config.json", "{"), "model/config.json: not JSON"),
        (lambda root: listed(root, "model/config.json", "[" * 100_000), "model/config.json: not JSON"),
        (
            lambda root: listed(
                root, "model/model.safetensors.index.json", '{"weight_map": {"a": "../../other.safetensors"}}'
            ),
            "weights in '../../other.safetensors', which is not in the pack",
        ),
        (lambda root: listed(root, "model/model.safetensors.index.json", "[]"), "has no weight_map"),
        (rewrite_manifest(files=None), "files"),
    ],
)
def test_what_is_planted_is_refused_by_name(
    tmp_path: Path, plant: Callable[[Path], None], said: str, verify: bool
) -> None:
    root = write(tmp_path / "pack").root
    EditPack.load(root)
    plant(root)
    with pytest.raises(PackError) as caught:
        EditPack.load(root, verify=verify)
    assert said in str(caught.value)
    assert str(root) in str(caught.value)


def test_shards_and_empty_folders_are_no_offence(tmp_path: Path) -> None:
    root = write(tmp_path / "pack").root
    listed(root, "model/model-00001.safetensors", b"x")
    listed(root, "model/model.safetensors.index.json", '{"weight_map": {"a": "model-00001.safetensors"}}')
    (root / "model/empty").mkdir()
    EditPack.load(root)


def test_a_link_to_the_pack_is_followed_once(tmp_path: Path) -> None:
    root = write(tmp_path / "v1").root
    (tmp_path / "alias").symlink_to(root)
    pack = EditPack.load(tmp_path / "alias")
    (tmp_path / "alias").unlink()
    assert pack.model_dir == root / "model"


def test_names_of_code_do_not_come_into_a_pack(tmp_path: Path) -> None:
    def hub_model(folder: Path) -> None:
        save_model(folder)
        code = {"AutoConfig": "configuration_x.XConfig"}
        (folder / "config.json").write_text(
            json.dumps({"a": 1, "auto_map": code, "text_config": {"auto_map": code}})
        )

    written = write(tmp_path / "pack", save=hub_model)
    assert EditPack.load(written.root) == written
    assert json.loads((written.model_dir / "config.json").read_text()) == {"a": 1, "text_config": {}}


def test_a_pack_that_could_not_be_loaded_is_not_written(tmp_path: Path) -> None:
    def pickled(folder: Path) -> None:
        save_model(folder)
        (folder / "pytorch_model.bin").write_bytes(b"x")

    with pytest.raises(PackError, match=r"pytorch_model\.bin"):
        write(tmp_path / "pack", save=pickled)
    assert list(tmp_path.iterdir()) == []


def test_a_pack_of_a_faster_process_is_not_replaced(tmp_path: Path) -> None:
    def slow(folder: Path) -> None:
        save_model(folder)
        write(tmp_path / "pack")

    with pytest.raises(BadInputError, match="exists; choose another place"):
        write(tmp_path / "pack", save=slow)
    assert EditPack.load(tmp_path / "pack").edits == (EDIT,)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_others_may_read_a_pack_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        root = write(tmp_path / "pack").root
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (root, *root.rglob("*"))}
    assert modes == {0o755, 0o644}


def test_without_verifying_only_sizes_count(tmp_path: Path) -> None:
    root = write(tmp_path / "pack").root
    flip(root)
    assert EditPack.load(root, verify=False).edits == (EDIT,)
    truncate(root)
    with pytest.raises(PackError, match="500 bytes"):
        EditPack.load(root, verify=False)


def test_a_file_is_no_pack(tmp_path: Path) -> None:
    file = tmp_path / "pack.json"
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(PackError, match=r"pack\.json: a file; an EditPack is a folder"):
        EditPack.load(file)


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
