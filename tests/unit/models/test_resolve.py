"""Names, folders and hub ids; a cache that is whole or rebuilt. Fetching and converting are stood in for."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.models import RECIPES, Recipe, cached_model, fetch_model, resolve, resolve_model
from onceedit_vllm.models.hub import fetch_from_hub
from onceedit_vllm.models.store import models_dir, seal
from onceedit_vllm.terminal import kept_terminal
from onceedit_vllm.testing import save_toy_model

NAME = "smollm2-135m"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Factory:
    """Stands in for fetching and converting; counts, and fails or dawdles on request."""

    def __init__(self) -> None:
        self.made = 0
        self.failure: BaseException | None = None
        self.seconds = 0.0

    def take_gguf(self, recipe: Recipe, work: Path, *, progress: bool) -> Path:
        (work / "notices").mkdir()
        (work / "notices" / "LICENSE").write_text("licence")
        return work / "x.gguf"

    def convert(self, recipe: Recipe, gguf: Path, out: Path, *, progress: bool) -> None:
        time.sleep(self.seconds)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (out / name).write_text(f"{recipe.name} {name}")
        if self.failure is not None:
            raise self.failure
        self.made += 1


@pytest.fixture
def factory(monkeypatch: pytest.MonkeyPatch) -> Factory:
    factory = Factory()
    monkeypatch.setattr(resolve, "take_gguf", factory.take_gguf)
    monkeypatch.setattr(resolve, "convert", factory.convert)
    return factory


def test_a_name_is_made_once_and_then_cached(factory: Factory) -> None:
    assert cached_model(NAME) is None
    folder = resolve_model(NAME)
    assert folder == resolve_model(NAME) == cached_model(NAME) == models_dir() / NAME
    assert factory.made == 1
    assert (folder / "LICENSE").read_text() == "licence"


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest", "old recipe"])
def test_a_damaged_entry_is_made_again(factory: Factory, damage: str) -> None:
    folder = resolve_model(NAME)
    weights, manifest = folder / "model.safetensors", folder / "onceedit_model.json"
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "remove":
        weights.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace('"recipe_version": 1', '"recipe_version": 0'))
    assert cached_model(NAME) is None
    assert resolve_model(NAME) == folder
    assert factory.made == 2
    assert cached_model(NAME) == folder


@pytest.mark.parametrize("failure", [ModelError("no"), KeyboardInterrupt()])
def test_a_failed_build_leaves_nothing(factory: Factory, failure: BaseException) -> None:
    factory.failure = failure
    with pytest.raises(type(failure)):
        resolve_model(NAME)
    assert [path.name for path in models_dir().iterdir()] == [f".{NAME}.lock"]
    factory.failure = None
    assert resolve_model(NAME).is_dir()


def test_what_a_killed_build_left_is_swept(factory: Factory) -> None:
    left = models_dir() / f".{NAME}.0123abcd.tmp"
    left.mkdir(parents=True)
    resolve_model(NAME)
    assert not left.exists()


def test_two_at_once_build_once(factory: Factory) -> None:
    factory.seconds = 0.3
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(resolve_model(NAME))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [models_dir() / NAME] * 2
    assert factory.made == 1


def test_an_unwritable_cache_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONCEEDIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="ONCEEDIT_CACHE"):
        resolve_model(NAME)


def test_copies_go_to_new_or_empty_folders_only(factory: Factory, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert fetch_model(NAME, out) == out
    assert {path.name for path in out.iterdir()} == {path.name for path in (models_dir() / NAME).iterdir()}
    with pytest.raises(BadInputError, match="already exists"):
        fetch_model(NAME, out)
    assert fetch_model(NAME, tmp_path / "deep" / "er").is_dir()
    assert not list(tmp_path.rglob("*.tmp"))


def test_copying_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadInputError, match="Known names: smollm2-135m, gemma-3-270m"):
        fetch_model("nope")


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = save_toy_model(tmp_path / "toy")
    assert resolve_model(folder) == folder


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer*", "no tokenizer"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(tmp_path: Path, removed: str, said: str) -> None:
    folder = save_toy_model(tmp_path / "toy")
    for path in folder.glob(removed):
        path.unlink()
    with pytest.raises(BadInputError, match=said):
        resolve_model(folder)


@pytest.mark.parametrize("bad", ["nope", "./nope", "/no/where", "~/nope", "", "a/b/c", "no such", "-/x"])
def test_unknown_models_list_what_works(bad: str) -> None:
    with pytest.raises(BadInputError, match=r"Known names: smollm2-135m.*owner/name"):
        resolve_model(bad)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInputError, match="is a file"):
        resolve_model(tmp_path / "config.json")


def test_a_hub_id_out_of_reach_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def out_of_reach(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", out_of_reach)
    with pytest.raises(ModelError, match="hub could not be reached") as caught:
        resolve_model("someone/some-model", progress=False)
    assert "pass a folder" in str(caught.value)


def test_bars_of_a_hub_model_reach_the_screen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    def download(*_: Any, tqdm_class: Any, **__: Any) -> str:
        print("noise", file=sys.stderr)
        with tqdm_class(desc="the bar of the download", total=1) as bar:
            bar.update()
        return str(save_toy_model(tmp_path / "toy"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with (tmp_path / "log").open("a") as log, kept_terminal(log):
        resolve_model("someone/some-model")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "the bar of the download" in captured.err
    assert "noise" in (tmp_path / "log").read_text()


def test_a_hub_model_at_a_revision(tmp_path: Path) -> None:
    """The hub's own cache holds two; nothing is fetched."""
    repository = tmp_path / "models--someone--some-model"
    for revision, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        save_toy_model(repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
    asked: tuple[tuple[str | None, str], ...] = ((None, "a" * 40), ("v2", "b" * 40), ("b" * 40, "b" * 40))
    for wanted, commit in asked:
        found = fetch_from_hub("someone/some-model", progress=False, revision=wanted, cache_dir=str(tmp_path))
        assert found == repository / "snapshots" / commit


def test_a_hub_model_must_be_whole_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(BadInputError, match=r"no config\.json"):
        resolve_model("someone/some-model")
    save_toy_model(tmp_path)
    assert resolve_model("someone/some-model") == tmp_path


def test_a_sealed_copy_of_another_model_is_not_taken_for_it(factory: Factory) -> None:
    folder = resolve_model(NAME)
    seal(folder, RECIPES["gemma-3-270m"])
    assert cached_model(NAME) is None
