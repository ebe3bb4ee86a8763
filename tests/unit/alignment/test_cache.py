from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from onceedit_vllm.alignment import cache
from onceedit_vllm.alignment.cache import entry_folder, fingerprint, load_entry, remembered, save_entry

MAPS = Path("/proc/self/maps")
TENSORS = {"a": torch.arange(6).reshape(2, 3).T, "b": torch.rand(4)}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    folder = entry_folder(tmp_path, "key")
    assert load_entry(folder) is None
    save_entry(folder, TENSORS, {"x": 1})
    loaded = load_entry(folder)
    assert loaded is not None
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    assert [path.name for path in folder.parent.iterdir()] == ["key"]


@pytest.mark.skipif(not MAPS.exists(), reason="what is mapped is read off /proc, which is Linux's")
def test_what_comes_back_is_mapped(tmp_path: Path) -> None:
    folder = entry_folder(tmp_path, "key")
    save_entry(folder, TENSORS, {})
    loaded = load_entry(folder)
    assert loaded is not None
    assert str(folder.resolve() / "alignment.safetensors") in MAPS.read_text()


def test_a_good_entry_of_another_process_stays(tmp_path: Path) -> None:
    folder = entry_folder(tmp_path, "key")
    save_entry(folder, TENSORS, {})
    written = (folder / "alignment.safetensors").stat()
    save_entry(folder, TENSORS, {})
    assert (folder / "alignment.safetensors").stat().st_ino == written.st_ino
    assert [path.name for path in folder.parent.iterdir()] == ["key"]


def test_a_crash_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    folder = entry_folder(tmp_path, "key")
    with pytest.raises(OSError, match="disk full"):
        save_entry(folder, TENSORS, {})
    assert list(folder.parent.iterdir()) == []


def test_a_damaged_entry_is_replaced(tmp_path: Path) -> None:
    folder = entry_folder(tmp_path, "key")
    save_entry(folder, TENSORS, {})
    (folder / "alignment.safetensors").write_bytes(b"")
    save_entry(folder, TENSORS, {})
    assert load_entry(folder) is not None
    assert [path.name for path in folder.parent.iterdir()] == ["key"]


def test_others_may_read_an_entry_as_the_umask_says(tmp_path: Path) -> None:
    folder = entry_folder(tmp_path, "key")
    before = os.umask(0o022)
    try:
        save_entry(folder, TENSORS, {})
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_what_took_long_is_remembered(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> str:
        made.append("")
        return "ab" * 32

    for _ in range(2):
        assert remembered(tmp_path, "key", make) == "ab" * 32
    assert len(made) == 1
    (tmp_path / "tokenizers" / "key").write_text("half")
    assert remembered(tmp_path, "key", make) == "ab" * 32
    assert len(made) == 2
    assert [path.name for path in (tmp_path / "tokenizers").iterdir()] == ["key"]
    (tmp_path / "file").write_text("a file where the folder should be")
    assert remembered(tmp_path / "file", "key", make) == "ab" * 32


def test_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint({"a": 1, "b": 2})
    assert first == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
    monkeypatch.setattr(cache, "METHOD_VERSION", cache.METHOD_VERSION + 1)
    assert fingerprint({"a": 1, "b": 2}) != first
