"""The plug-in in this process."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.plugin.client import LocalClient
from onceedit_vllm.plugin.epoch import Epoch
from onceedit_vllm.plugin.local import LocalHost
from onceedit_vllm.plugin.packets import Open, State
from tests.unit.plugin.client_contract import PROMPTS, ClientContract, ToyPlugIn, plug_in, states

__all__ = ["plug_in"]  # the fixture


@pytest.fixture(scope="module")
def host(plug_in: ToyPlugIn) -> LocalHost:
    return LocalHost(plug_in.pack, PlugInConfig(device="cpu", dtype="float32"))


@pytest.fixture
def client(host: LocalHost, plug_in: ToyPlugIn) -> Iterator[LocalClient]:
    client = host.attach(plug_in.vocabulary)
    yield client
    client.shutdown()


class TestLocalHost(ClientContract):
    """In this process; lists are whole."""


def test_several_engines_share_one_plugin_and_nothing_else(host: LocalHost, plug_in: ToyPlugIn) -> None:
    one, other = host.attach(plug_in.vocabulary), host.attach(plug_in.vocabulary)
    prompts = [plug_in.llm_ids(prompt) for prompt in PROMPTS[:2]]
    one.send([Open(1, prompts[0], alpha=1.0)])
    other.send([Open(1, prompts[1], alpha=1.0)])
    TestLocalHost().check(one.take([(1, 0)]), plug_in, [(prompts[0], [])])
    TestLocalHost().check(other.take([(1, 0)]), plug_in, [(prompts[1], [])])
    one.shutdown()
    assert states(other.take([(1, 0)])) == [State.SPEAKING]
    other.shutdown()


@pytest.mark.parametrize(
    ("override", "thresholds"), [(None, (0.1, 0.6)), (0.3, (0.3, 0.3)), (0.0, (0.0, 0.0))]
)
def test_the_gate_takes_the_packs_thresholds_unless_one_is_set(
    plug_in: ToyPlugIn, override: float | None, thresholds: tuple[float, float]
) -> None:
    manifest = SimpleNamespace(**vars(plug_in.pack.manifest) | {"threshold": 0.1, "weight_threshold": 0.6})
    pack: Any = SimpleNamespace(**vars(plug_in.pack) | {"manifest": manifest})
    gate = LocalHost(pack, PlugInConfig(device="cpu")).attach(plug_in.vocabulary, override)._readers[1]._gate
    assert (gate.threshold, gate.weight_threshold) == thresholds


@pytest.mark.parametrize(("threshold", "state"), [(None, State.SPEAKING), (0.7, State.CLOSED)])
def test_a_threshold_of_the_engine_is_in_place_of_the_packs(
    host: LocalHost, plug_in: ToyPlugIn, threshold: float | None, state: State
) -> None:
    client = host.attach(plug_in.vocabulary, threshold)
    client.send([Open(1, plug_in.llm_ids(PROMPTS[3]))])
    (answer,) = client.take([(1, 0)]).of
    assert 0.5 < (answer.alpha or 0.0) < 0.7
    assert answer.state == state
    client.shutdown()


def test_a_pack_that_an_engine_cannot_use_is_not_loaded(plug_in: ToyPlugIn) -> None:
    plug_in.pack.manifest.base_fingerprint = "toy"
    host = LocalHost(plug_in.pack, PlugInConfig(device="cpu", dtype="float32"))
    client = host.attach(plug_in.vocabulary)
    manifest = SimpleNamespace(**vars(plug_in.pack.manifest) | {"template": "nobody's"})
    pack: Any = SimpleNamespace(**vars(plug_in.pack) | {"manifest": manifest})
    with pytest.raises(KeyError, match="nobody's"):
        host._admit(Epoch(2, pack, PlugInConfig(device="cpu", dtype="float32")))
    assert host.tally()["packs"] == 1
    host.load(plug_in.pack)
    assert list(client._prepared) == [2]


def test_a_pack_that_was_loaded_and_never_activated_makes_room_for_the_next(plug_in: ToyPlugIn) -> None:
    plug_in.pack.manifest.base_fingerprint = "toy"
    host = LocalHost(plug_in.pack, PlugInConfig(device="cpu", dtype="float32"))
    assert [host.load(plug_in.pack) for _ in range(3)] == [2, 3, 4]
    assert host.tally()["packs"] == 2
    with pytest.raises(BadInputError, match=r"no pack number 2 .* loaded are \[1, 4\]"):
        host.activate(2)
    host.activate(4)
    assert (host.tally()["epoch"], host.tally()["packs"]) == (4, 1)
