"""The cache of models: locks and seals."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from onceedit_vllm.errors import ModelError
from onceedit_vllm.models.recipes import RECIPES
from onceedit_vllm.models.store import (
    is_whole,
    locked,
    models_dir,
    open_store,
    seal,
)

RECIPE, OTHER = RECIPES["smollm2-135m"], RECIPES["gemma-3-270m"]

HOLDER = """
import sys
from pathlib import Path
from onceedit_vllm.models.store import locked
with locked(Path(sys.argv[1]), waiting="not heard"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"12345678")
    seal(folder, RECIPE)
    return folder


def holder(lock: Path) -> subprocess.Popen[str]:
    """Another process that holds `lock` until its standard input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


@pytest.mark.parametrize("ending", ["released", "killed"])
def test_a_lock_waits_for_another_process_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    lock = tmp_path / "lock"
    order: list[str] = []

    def wait() -> None:
        with locked(lock, waiting="Another process is at it."):
            order.append("mine")

    with holder(lock) as child:
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(timeout=0.5)
        assert waiter.is_alive()
        order.append("theirs")
        child.kill() if ending == "killed" else child.communicate("")
        waiter.join(timeout=30)
    assert order == ["theirs", "mine"]
    assert capsys.readouterr().err == "Another process is at it.\n"


def test_a_free_lock_says_nothing_and_is_free_again_after_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "lock"
    with pytest.raises(KeyError), locked(lock, waiting="waiting"):
        raise KeyError
    with locked(lock, waiting="waiting"):
        pass
    assert capsys.readouterr().err == ""


def test_a_sealed_folder_is_whole(sealed: Path) -> None:
    assert is_whole(sealed, RECIPE)
    manifest = json.loads((sealed / "onceedit_model.json").read_text())
    assert manifest["files"] == {"config.json": 2, "model.safetensors": 8}
    assert (manifest["name"], manifest["licence"]) == (RECIPE.name, RECIPE.licence)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", "1234567"),
        ("onceedit_model.json", None),
        ("onceedit_model.json", "{"),
        ("onceedit_model.json", "[]"),
        ("onceedit_model.json", '{"recipe_version": 1}'),
    ],
)
def test_a_damaged_folder_is_not_whole(sealed: Path, file: str, content: str | None) -> None:
    (sealed / file).unlink()
    if content is not None:
        (sealed / file).write_text(content)
    assert not is_whole(sealed, RECIPE)


def test_a_folder_of_another_recipe_is_not_whole(sealed: Path) -> None:
    assert not is_whole(sealed, OTHER)
    assert not is_whole(sealed, RECIPE._replace(requirements=("another==2",)))


def test_a_store_that_cannot_be_written_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "cache"))
    assert open_store() == models_dir() == tmp_path / "cache" / "models"
    assert list(models_dir().iterdir()) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="Set ONCEEDIT_CACHE"):
        open_store()
