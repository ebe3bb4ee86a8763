"""Another pack beside the active one: what is refused, and what is let go of."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin.local import LocalHost
from onceedit_vllm.plugin.packets import Append, Open, State
from onceedit_vllm.runner import extension
from onceedit_vllm.runner.extension import OnceEditWorkerExtension, _acted
from onceedit_vllm.runner.swap import PackSwap
from tests.unit.plugin.client_contract import ToyPlugIn, plug_in
from tests.unit.plugin.fakes import EDITED, FakeRuntime, some_client

__all__ = ["plug_in"]  # the fixture


class Packs:
    """The toy's pack under several names; one of them takes as long to load as a test wants."""

    def __init__(self, plug_in: ToyPlugIn, monkeypatch: pytest.MonkeyPatch) -> None:
        plug_in.pack.manifest.base_fingerprint = "toy"
        self._pack = plug_in.pack
        self.may_load = threading.Event()
        self.host = LocalHost(plug_in.pack, PlugInConfig(device="cpu", dtype="float32"))
        self.swap = PackSwap(self.host, Path("/packs/first"))
        monkeypatch.setattr(EditPack, "load", self._load)

    def _load(self, root: Path) -> Any:
        assert root != Path("/packs/broken"), "damaged"
        if root == Path("/packs/slow"):
            assert self.may_load.wait(30)
        return self._pack

    def loaded(self, pack: str) -> dict[str, Any]:
        self.swap.load(pack)
        assert self.swap._thread is not None
        self.swap._thread.join(30)
        return self.swap.status()


@pytest.fixture
def packs(plug_in: ToyPlugIn, monkeypatch: pytest.MonkeyPatch) -> Packs:
    return Packs(plug_in, monkeypatch)


def test_a_pack_is_loaded_activated_and_taken_back(packs: Packs) -> None:
    assert packs.swap.status()["state"] == "idle"
    assert packs.loaded("/packs/second")["state"] == "loaded"
    assert packs.swap.status()["pack"] == "/packs/first"
    assert packs.swap.status()["waiting"] == "/packs/second"
    assert packs.swap.activate("/packs/second") == 2
    assert packs.swap.status() == {
        "state": "idle", "error": None, "waiting": None,
        "epoch": 2, "pack": "/packs/second", "edits": 1, "packs_in_memory": 1,
    }  # fmt: skip
    packs.swap.rollback()
    assert packs.swap._thread is not None
    packs.swap._thread.join(30)
    packs.swap.activate("/packs/first")
    assert packs.swap.status()["pack"] == "/packs/first"


def test_what_cannot_be_is_refused_and_says_why(packs: Packs) -> None:
    with pytest.raises(BadInputError, match="no other pack was active before"):
        packs.swap.rollback()
    with pytest.raises(BadInputError, match="no pack is loaded and waiting to be activated: it is idle"):
        packs.swap.activate()
    packs.swap.load("/packs/slow")
    with pytest.raises(BadInputError, match="a pack is being loaded already"):
        packs.swap.load("/packs/second")
    packs.may_load.set()
    assert packs.swap._thread is not None
    packs.swap._thread.join(30)
    with pytest.raises(BadInputError, match=r"/packs/second is not the pack .* that is /packs/slow"):
        packs.swap.activate("/packs/second")
    assert packs.swap.activate() == 2


def test_a_pack_that_cannot_be_loaded_leaves_the_active_one(packs: Packs) -> None:
    status = packs.loaded("/packs/broken")
    assert (status["state"], status["epoch"], status["pack"]) == ("failed", 1, "/packs/first")
    assert "damaged" in status["error"]


def test_a_text_that_does_not_end_keeps_its_pack_until_the_deadline_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = FakeRuntime()
    client = some_client(runtime, None, FakeRuntime())
    swap = PackSwap(client._packs, Path("/packs/first"))
    client.send([Open(1, [EDITED])])
    client.take([(1, 0)])
    client._packs.activate(2)
    swap.tick()
    assert client.tally()["packs"] == 2
    monkeypatch.setattr("onceedit_vllm.plugin.packs._RETIRE_SECONDS", 0.0)
    swap.tick()
    assert (client.tally()["packs"], runtime.texts) == (1, {})
    client.send([Append(1, 0, [3])])
    assert [answer.state for answer in client.take([(1, 1)]).of] == [State.UNKNOWN]


def test_a_pack_that_cannot_be_let_go_of_ends_no_step(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = SimpleNamespace(active=SimpleNamespace(number=1), retire=lambda: 1 / 0)
    PackSwap(broken, Path("/packs/first")).tick()
    assert "cannot be let go of" in caplog.text


# What a worker answers. It never raises: the answers of several workers would be mixed up.


def worker(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> Any:
    processor = SimpleNamespace(is_first=True, swap=None, **fields)
    monkeypatch.setattr(extension, "processor_of", lambda _: processor)
    settings = {"onceedit": {"pack": "p", "plugin": {"host": "ray", "name": "facts"}}}
    return SimpleNamespace(vllm_config=SimpleNamespace(additional_config=settings))


CALLS = ["onceedit_load", "onceedit_status", "onceedit_activate", "onceedit_rollback"]


def call(name: str, on: Any) -> Any:
    arguments = ["/packs/second"] if name == "onceedit_load" else []
    return getattr(OnceEditWorkerExtension, name)(on, *arguments)


def test_a_call_that_is_refused_answers_with_the_reason_and_the_status(packs: Packs) -> None:
    answer = _acted(packs.swap, lambda swap: swap.activate())
    assert answer == {**packs.swap.status(), "refused": answer["refused"]}
    assert "no pack is loaded and waiting" in answer["refused"]
    assert _acted(packs.swap, lambda swap: None)["refused"] is None


@pytest.mark.parametrize("name", CALLS)
def test_a_worker_without_the_plugin_answers_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = worker(monkeypatch)
    extension.processor_of(other).is_first = False
    assert call(name, other) is None


@pytest.mark.parametrize("name", CALLS)
def test_with_a_ray_host_the_answer_names_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = call(name, worker(monkeypatch))
    assert "`onceedit host load PACK --name facts`" in said["refused"]


@pytest.mark.parametrize("name", CALLS)
def test_what_nobody_expected_is_an_answer_too(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on = worker(monkeypatch)
    broken: Any = SimpleNamespace(status=lambda: 1 / 0)
    extension.processor_of(on).swap = broken
    assert call(name, on)["refused"].startswith(("ZeroDivisionError", "AttributeError"))
