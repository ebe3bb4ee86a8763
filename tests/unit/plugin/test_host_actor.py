"""What a host decides without Ray."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import HostError
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin import host_actor
from onceedit_vllm.plugin.host_actor import HostActor, manifest_digest, socket_folder
from onceedit_vllm.plugin.packets import Append, Close, Event, Open, State
from onceedit_vllm.plugin.remote import Endpoint, RemoteClient
from onceedit_vllm.testing import save_toy_model
from tests.unit.plugin.client_contract import PROMPTS, ToyPlugIn, dense, plug_in, states, write_pack
from tests.unit.test_pack import write as write_any

__all__ = ["plug_in"]  # the fixture


def test_the_folder_of_the_sockets_is_this_users_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = socket_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert socket_folder() == folder
    folder.chmod(0o750)
    with pytest.raises(HostError, match="0700"):
        socket_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="0700"):
        socket_folder()


def niceness_of_an_actor() -> int:
    """Of one that Ray has made nicer than its parent."""
    os.nice(5)
    host_actor._be_as_nice_as_its_parent()
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_an_actor_has_the_same_right_to_the_cpu_as_its_cluster() -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(niceness_of_an_actor).result(timeout=60)
    # Who is not root has to leave it as Ray wants it.
    assert found == (own if os.geteuid() == 0 else own + 5)


def test_another_edit_is_another_digest(tmp_path: Path) -> None:
    one, same = write_any(tmp_path / "one"), write_any(tmp_path / "same")

    def save(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(999) + b"x")

    other = write_any(tmp_path / "other", save=save)
    assert manifest_digest(one) == manifest_digest(same) != manifest_digest(other)


def test_an_actor_that_cannot_serve_lives_to_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_actor, "_pin", lambda _: None)  # this process is not the actor's
    actor = HostActor("a", str(tmp_path / "none"), "{}", "key")
    assert "there is no such folder" in actor.facts()["failure"]
    actor.end()


# Another pack; the toy plug-in, served in this process.


class Life:
    """One host of which the process may end and begin again, and an engine of it."""

    def __init__(self, plug_in: ToyPlugIn, first: EditPack) -> None:
        self.plug_in, self.first = plug_in, first
        self.actor = self.begin()
        self.client = RemoteClient(self.endpoint(first), plug_in.vocabulary)

    def begin(self) -> HostActor:
        return HostActor("a", str(self.first.root), PlugInConfig(device="cpu").model_dump_json(), "key")

    def endpoint(self, pack: EditPack) -> Endpoint:
        return Endpoint(self.facts["address"], self.facts["token"], manifest_digest(pack))

    @property
    def facts(self) -> dict[str, Any]:
        facts = self.actor.facts()
        assert not facts["failure"]
        return facts

    def serves(self) -> tuple[Path, int, int]:
        """The pack, its number, and how many are in memory."""
        facts = self.facts
        return Path(facts["pack"]), facts["epoch"], facts["num_packs"]

    def die_and_begin_again(self) -> None:
        self.actor._server.stop()  # as far as a process that is there can be killed
        self.actor = self.begin()

    def hears_of(self, epoch: int) -> None:
        """What is said travels."""
        until = time.monotonic() + 20
        while self.client.active.epoch != epoch:
            assert time.monotonic() < until
            time.sleep(0.01)

    def ask(self, event: Event, length: int = 0) -> torch.Tensor:
        self.client.send([event])
        answers = self.client.take([(event.handle, length)])
        assert states(answers) == [State.SPEAKING]
        return dense(answers, self.plug_in.vocabulary.width)


@pytest.fixture(scope="module")
def packs(plug_in: ToyPlugIn, tmp_path_factory: pytest.TempPathFactory) -> dict[str, EditPack]:
    """Two that say different things, one of another base model, and one that says no numbers."""
    root = tmp_path_factory.mktemp("packs")
    other = save_toy_model(root / "model", tokenizer=plug_in.tokenizer, kind="llama", seed=3)
    broken = shutil.copytree(plug_in.folder, root / "broken")
    weights = safetensors.torch.load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"].fill_(float("nan"))
    safetensors.torch.save_file(weights, broken / "model.safetensors", {"format": "pt"})
    return {
        "a": write_pack(plug_in, root / "a"),
        "b": write_pack(plug_in, root / "b", edit="b", model=other),
        "foreign": write_pack(plug_in, root / "foreign", base="another"),
        "broken": write_pack(plug_in, root / "nan", model=broken),
    }


@pytest.fixture
def life(
    plug_in: ToyPlugIn, packs: dict[str, EditPack], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Life]:
    monkeypatch.setattr(host_actor, "_pin", lambda _: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    life = Life(plug_in, packs["a"])
    yield life
    life.client.shutdown()
    life.actor.end()
    assert list(socket_folder().iterdir()) == []


def test_texts_under_way_finish_with_their_pack_and_the_others_get_the_new_one(
    life: Life, packs: dict[str, EditPack], plug_in: ToyPlugIn
) -> None:
    prompt = plug_in.llm_ids(PROMPTS[0])
    before = life.ask(Open(1, prompt, alpha=1.0, epoch=1))
    next_before = life.ask(Append(1, 0, [9]), 1)
    assert life.actor.load(str(packs["b"].root)) == ""
    assert life.serves() == (packs["b"].root, 2, 2)
    life.hears_of(2)
    after = life.ask(Open(2, prompt, alpha=1.0, epoch=2))
    assert not torch.allclose(before, after, atol=1e-3)
    resumed = life.ask(Open(3, prompt, [9], alpha=1.0, epoch=1), 1)
    torch.testing.assert_close(resumed, next_before, atol=1e-6, rtol=0.0)
    life.client.send([Close(1), Close(3)])
    assert life.client.tally()["packs"] == 1
    assert life.actor.rollback() == ""
    assert life.serves()[:2] == (packs["a"].root, 3)
    torch.testing.assert_close(life.ask(Open(4, prompt, alpha=1.0, epoch=3)), before, atol=1e-6, rtol=0.0)


def test_a_rollback_takes_what_is_still_in_memory_and_a_number_never_means_another_pack(
    life: Life, packs: dict[str, EditPack], plug_in: ToyPlugIn
) -> None:
    life.ask(Open(1, plug_in.llm_ids(PROMPTS[0]), alpha=1.0))
    life.actor.load(str(packs["b"].root))
    life.ask(Open(2, plug_in.llm_ids(PROMPTS[0]), alpha=1.0))
    assert life.actor.rollback() == ""
    assert life.serves() == (packs["a"].root, 1, 2)
    assert life.actor.rollback() == ""
    assert life.serves() == (packs["b"].root, 2, 2)
    life.actor.rollback()
    life.die_and_begin_again()
    assert life.serves() == (packs["a"].root, 1, 1)
    life.actor.load(str(packs["b"].root))
    assert life.serves()[:2] == (packs["b"].root, 3)


def test_a_host_that_dies_comes_back_with_the_pack_that_was_active(
    life: Life, packs: dict[str, EditPack], plug_in: ToyPlugIn
) -> None:
    prompt = plug_in.llm_ids(PROMPTS[0])
    life.actor.load(str(packs["b"].root))
    expected = life.ask(Open(1, prompt, alpha=1.0, epoch=2))
    life.die_and_begin_again()
    assert life.serves() == (packs["b"].root, 2, 1)
    # An engine that was started with the first pack, and one with this.
    for pack in (packs["a"], packs["b"]):
        life.client.shutdown()
        life.client = RemoteClient(life.endpoint(pack), plug_in.vocabulary)
        assert life.client.active.epoch == 2
        found = life.ask(Open(1, prompt, alpha=1.0, epoch=2))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.0)
    assert life.actor.rollback() == ""
    assert life.serves()[:2] == (packs["a"].root, 3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("foreign", "an edit of another base model"),
        ("broken", "not a number"),
        ("nowhere", "there is no such folder"),
    ],
)
def test_what_cannot_be_served_is_refused_and_the_old_one_stays(
    life: Life, packs: dict[str, EditPack], plug_in: ToyPlugIn, wrong: str, said: str, tmp_path: Path
) -> None:
    folder = packs[wrong].root if wrong in packs else tmp_path / wrong
    assert said in life.actor.load(str(folder))
    assert "no other pack was active before" in life.actor.rollback()
    assert life.serves() == (packs["a"].root, 1, 1)
    assert life.client.active.epoch == 1
    life.ask(Open(1, plug_in.llm_ids(PROMPTS[0]), alpha=1.0, epoch=1))


def test_without_room_the_old_one_stays(
    life: Life, packs: dict[str, EditPack], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onceedit_vllm.plugin.room._free_bytes", lambda _: 10**9)
    assert "there is no room for a second plug-in" in life.actor.load(str(packs["b"].root))
    assert life.serves() == (packs["a"].root, 1, 1)


def test_what_cannot_be_written_down_is_not_served(life: Life, packs: dict[str, EditPack]) -> None:
    def refuse(_: object) -> None:
        raise OSError("the disk is full")

    life.actor._history._write = refuse  # type: ignore[assignment]
    assert "the disk is full" in life.actor.load(str(packs["b"].root))
    del life.actor._history._write
    assert life.client.active.epoch == 1
    assert life.serves()[:2] == (packs["a"].root, 1)


def test_one_change_at_a_time(life: Life, packs: dict[str, EditPack]) -> None:
    with life.actor._swapping:
        assert "at the moment" in life.actor.load(str(packs["b"].root))
    assert life.actor.load(str(packs["b"].root)) == ""


def test_an_engine_with_a_pack_that_was_never_served_is_refused(
    life: Life, packs: dict[str, EditPack], plug_in: ToyPlugIn
) -> None:
    with pytest.raises(HostError, match="never served"):
        RemoteClient(life.endpoint(packs["b"]), plug_in.vocabulary)
    life.actor.load(str(packs["b"].root))
    RemoteClient(life.endpoint(packs["b"]), plug_in.vocabulary).shutdown()


def test_a_folder_that_holds_another_pack_since_gets_another_number_and_no_rollback(
    life: Life, packs: dict[str, EditPack], plug_in: ToyPlugIn, tmp_path: Path
) -> None:
    reused = write_pack(plug_in, tmp_path / "reused", edit="one")
    life.actor.load(str(reused.root))
    shutil.rmtree(reused.root)
    write_pack(plug_in, tmp_path / "reused", edit="two")
    life.die_and_begin_again()
    assert life.serves()[:2] == (reused.root, 3)
    assert "holds another pack" in life.actor.rollback()
    shutil.rmtree(reused.root)
    write_pack(plug_in, tmp_path / "reused", base="another")
    life.actor._server.stop()
    life.actor = life.begin()
    assert "another base model" in life.actor.facts()["failure"]
    assert "does not serve" in life.actor.load(str(packs["a"].root))
