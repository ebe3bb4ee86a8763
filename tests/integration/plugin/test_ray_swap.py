"""Another pack for a host in an actor of a real Ray, while an engine is attached to it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from onceedit_vllm.errors import BadInputError, HostError
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin import ray_host
from onceedit_vllm.plugin.packets import Append, Close, Open, State
from onceedit_vllm.plugin.remote import RemoteClient
from onceedit_vllm.testing import save_toy_model
from tests.integration.plugin.test_ray_host import (
    CONFIG,
    cluster,
    engine,
    eventually,
    pack,
    run_command,
    running,
)
from tests.unit.plugin.client_contract import PROMPTS, ToyPlugIn, dense, plug_in, states, write_pack

pytestmark = [pytest.mark.integration, pytest.mark.alone]

__all__ = ["cluster", "pack", "plug_in"]  # the fixtures


@pytest.fixture(scope="module")
def other(plug_in: ToyPlugIn, tmp_path_factory: pytest.TempPathFactory) -> EditPack:
    """A pack that says other things."""
    root = tmp_path_factory.mktemp("other")
    model = save_toy_model(root / "model", tokenizer=plug_in.tokenizer, kind="llama", seed=3)
    return write_pack(plug_in, root / "pack", edit="other", model=model)


class Asker:
    """An engine that asks for one prompt, with the pack that it has heard of."""

    def __init__(self, client: RemoteClient, plug_in: ToyPlugIn) -> None:
        self.client, self.width = client, plug_in.vocabulary.width
        self.prompt = plug_in.llm_ids(PROMPTS[0])
        self.num_asked = 0

    def new(self) -> tuple[int, torch.Tensor]:
        """A new request: its handle, and what the plug-in says; what the host does not know is told anew."""
        while True:
            self.num_asked += 1
            self.client.send([Open(self.num_asked, self.prompt, alpha=1.0, epoch=self.client.active.epoch)])
            answers = self.client.take([(self.num_asked, 0)])
            if states(answers) != [State.UNKNOWN]:
                assert states(answers) == [State.SPEAKING]
                return self.num_asked, dense(answers, self.width)

    def next(self, handle: int, length: int) -> torch.Tensor:
        self.client.send([Append(handle, length - 1, [9])])
        answers = self.client.take([(handle, length)])
        assert states(answers) == [State.SPEAKING]
        return dense(answers, self.width)


@pytest.fixture
def asker(cluster: str, pack: EditPack, plug_in: ToyPlugIn) -> Iterator[Asker]:
    with running("swapped", pack):
        client = engine(pack, plug_in, "swapped")
        yield Asker(client, plug_in)
        client.shutdown()


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return torch.allclose(one, two, atol=1e-5, rtol=0.0)


def test_running_texts_finish_on_their_pack_new_ones_get_the_new_and_back(
    asker: Asker, pack: EditPack, other: EditPack
) -> None:
    first, old = asker.new()
    undisturbed, _ = asker.new()
    expected = [asker.next(undisturbed, length) for length in (1, 2)]
    assert same(asker.next(first, 1), expected[0])
    stages: list[str] = []
    facts = ray_host.load("swapped", other, stages.append)
    assert (facts.pack, facts.epoch, facts.num_packs, facts.num_texts) == (str(other.root), 2, 2, 2)
    assert all(stage.split()[0] in ("reading", "loading", "activating") for stage in stages)
    eventually(lambda: asker.client.active.epoch == 2)
    _, new = asker.new()
    assert not same(new, old)
    assert same(asker.next(first, 2), expected[1])
    asker.client.send([Close(handle) for handle in (first, undisturbed)])
    eventually(lambda: ray_host.find("swapped").num_packs == 1)
    back = ray_host.rollback("swapped")
    assert (back.pack, back.epoch) == (str(pack.root), 3)
    eventually(lambda: asker.client.active.epoch == 3)
    assert same(asker.new()[1], old)
    assert asker.client.tally().get("reconnects", 0) == 0


def test_killed_after_a_swap_it_comes_back_with_the_new_pack(
    asker: Asker, pack: EditPack, other: EditPack, plug_in: ToyPlugIn
) -> None:
    _, old = asker.new()
    swapped = ray_host.load("swapped", other)
    eventually(lambda: asker.client.active.epoch == 2)
    _, new = asker.new()
    os.kill(swapped.pid, signal.SIGKILL)
    eventually(lambda: ray_host.find("swapped").pid not in (0, swapped.pid))
    found = ray_host.find("swapped")
    assert (found.pack, found.epoch, found.address) == (str(other.root), 2, swapped.address)
    # The engine that was there, one that is started as it always was, and one with the new pack.
    eventually(lambda: bool(asker.client._socket.poll(0, 2)))
    assert same(asker.new()[1], new)
    for own, expected in ((pack, str(other.root)), (other, None)):
        joined = ray_host.join(own, CONFIG.model_copy(update={"name": "swapped"}))
        assert joined.other_pack == expected
        late = engine(own, plug_in, "swapped")
        assert same(Asker(late, plug_in).new()[1], new)
        late.shutdown()
    # Killed, and another pack activated before the engine says a word.
    os.kill(found.pid, signal.SIGKILL)
    eventually(lambda: ray_host.find("swapped").pid not in (0, found.pid))
    assert ray_host.rollback("swapped").epoch == 3
    eventually(lambda: bool(asker.client._socket.poll(0, 2)))
    assert same(asker.new()[1], old)
    assert asker.client.active.epoch == 3


def test_what_does_not_fit_is_refused_and_the_old_one_answers_on(
    asker: Asker, pack: EditPack, plug_in: ToyPlugIn, tmp_path: Path
) -> None:
    running_text, _ = asker.new()
    foreign = write_pack(plug_in, tmp_path / "foreign", base="another")
    with pytest.raises(HostError, match="another base model") as caught:
        ray_host.load("swapped", foreign)
    assert f"goes on with {pack.root}" in str(caught.value)
    with pytest.raises(HostError, match="no other pack was active before"):
        ray_host.rollback("swapped")
    with pytest.raises(HostError, match=f"onceedit host load {foreign.root}"):
        engine(foreign, plug_in, "swapped")
    asker.next(running_text, 1)
    facts = ray_host.find("swapped")
    assert (facts.pack, facts.epoch, facts.num_packs) == (str(pack.root), 1, 1)


def test_nobody_of_that_name(cluster: str, pack: EditPack) -> None:
    with pytest.raises(BadInputError, match="'nobody'"):
        ray_host.load("nobody", pack)
    with pytest.raises(BadInputError, match="'nobody'"):
        ray_host.rollback("nobody")


def test_the_commands(asker: Asker, cluster: str, pack: EditPack, other: EditPack) -> None:
    loaded = run_command("host", "load", str(other.root), "--name", "swapped", RAY_ADDRESS=cluster)
    assert loaded.returncode == 0, loaded.stderr
    assert str(other.root) in loaded.stdout
    listed = run_command("host", "list", "--json", "-", RAY_ADDRESS=cluster)
    (found,) = [host for host in json.loads(listed.stdout) if host["name"] == "swapped"]
    assert (found["epoch"], found["pack"], len(found["engines"])) == (2, str(other.root), 1)
    assert found["num_packs"] == 1
    assert found["num_bytes"] > 0
    back = run_command("host", "rollback", "--name", "swapped", "--json", "-", RAY_ADDRESS=cluster)
    assert json.loads(back.stdout)["pack"] == str(pack.root)
    eventually(lambda: asker.client.active.epoch == 3)
