"""A host as an actor of a real Ray: what every host does, byte for byte, and what happens when it fails."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import zmq

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError, HostError
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin import ray_host
from onceedit_vllm.plugin.local import LocalHost
from onceedit_vllm.plugin.packets import Append, Close, Open, State
from onceedit_vllm.plugin.ray_host import HostFacts
from onceedit_vllm.plugin.remote import RemoteClient
from onceedit_vllm.plugin.wire import (
    VERSION,
    Attach,
    Attached,
    Said,
    Step,
    VocabularyBytes,
    decode_request,
    encode,
    packets_of,
)
from tests.unit.plugin.client_contract import (
    OUTPUT,
    PROMPTS,
    ClientContract,
    ToyPlugIn,
    plug_in,
    states,
    write_pack,
)
from tests.unit.plugin.test_server import Engine

ray = pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = [pytest.mark.integration, pytest.mark.alone]

__all__ = ["plug_in", "write_pack"]

CONFIG = PlugInConfig(
    host="ray", device="cpu", cpus=(0,), hard_deadline=1.0, first_deadline=1.5, retry_seconds=1.0
)


@pytest.mark.parametrize("arguments", [["list"], ["stop", "x"]])
def test_without_a_cluster_the_commands_say_how_to_start_one(arguments: list[str]) -> None:
    assert not ray.is_initialized()
    done = run_command("host", *arguments)
    assert done.returncode == 1
    assert "ray start --head" in done.stderr


def test_an_address_where_nobody_listens_is_named_at_once() -> None:
    done = run_command("host", "list", RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 1
    assert "RAY_ADDRESS=127.0.0.1:1" in done.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def pack(plug_in: ToyPlugIn, tmp_path_factory: pytest.TempPathFactory) -> EditPack:
    return write_pack(plug_in, tmp_path_factory.mktemp("packs") / "pack")


@contextmanager
def running(name: str, pack: EditPack, config: PlugInConfig = CONFIG) -> Iterator[HostFacts]:
    yield ray_host.start(name, pack, config)
    ray_host.stop(name)


@pytest.fixture(scope="module")
def facts(cluster: str, pack: EditPack) -> Iterator[HostFacts]:
    with running("shared", pack) as facts:
        yield facts


@pytest.fixture
def client(facts: HostFacts, pack: EditPack, plug_in: ToyPlugIn) -> Iterator[RemoteClient]:
    client = engine(pack, plug_in, "shared")
    yield client
    client.shutdown()


def engine(pack: EditPack, plug_in: ToyPlugIn, name: str) -> RemoteClient:
    config = CONFIG.model_copy(update={"name": name})
    return RemoteClient(ray_host.join(pack, config).endpoint, plug_in.vocabulary, config=config)


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


class TestRayHost(ClientContract):
    """In an actor; lists are cut."""


def packets_here(root: Path, vocabulary: bytes, script: list[bytes], wanted: list[Any]) -> list[bytes]:
    """What a host in this process says, as bytes; with one thread, as the actor has."""
    torch.set_num_threads(1)
    client = LocalHost(EditPack.load(root), CONFIG).attach(
        msgspec.msgpack.decode(vocabulary, type=VocabularyBytes).read()
    )
    answers = []
    for message, asked in zip(script, wanted, strict=True):
        step = decode_request(message)
        assert isinstance(step, Step)
        client.send(step.events)
        packets = packets_of(asked, client.take(asked), [handle == 3 for handle, _ in asked])
        answers.append(encode(Said(1, packets)))
    return answers


def test_its_packets_are_those_of_a_local_host_byte_for_byte(
    cluster: str, pack: EditPack, plug_in: ToyPlugIn
) -> None:
    """Two hosts that have read nothing else: what is known of a text already is not read in the same batches.

    The local one is in a process of its own: what other tests did to torch in this one may round otherwise.
    """
    prompts = [plug_in.llm_ids(prompt) for prompt in PROMPTS]
    output = plug_in.llm_ids(OUTPUT)
    script: list[list[Any]] = [
        [Open(i, prompt, alpha=1.0, whole=i == 3) for i, prompt in enumerate(prompts)],
        *[[Append(i, n, [token]) for i in range(3)] for n, token in enumerate(output)],
        [Close(1), Append(2, 0, [9]), Open(7, prompts[0], output, (0,)), Append(77, 0, [1])],
    ]
    vocabulary = VocabularyBytes.of(plug_in.vocabulary)
    context: Any = zmq.Context()
    with running("fresh", pack) as facts:
        by_hand = Engine(context, facts.address, "by hand")
        try:
            attach = Attach(VERSION, 1, facts.token, facts.digest, None, vocabulary)
            assert isinstance(by_hand.ask(attach), Attached)
            said = [by_hand.ask(Step(1, events)) for events in script]
        finally:
            by_hand.socket.close()
            context.term()
    assert all(isinstance(each, Said) for each in said)
    wanted = [[(packet.handle, packet.length) for packet in each.packets] for each in said]  # type: ignore[union-attr]
    steps = [encode(Step(1, events)) for events in script]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        job = pool.submit(packets_here, pack.root, msgspec.msgpack.encode(vocabulary), steps, wanted)
        assert [encode(each) for each in said] == job.result(timeout=120)


def test_it_runs_on_the_cores_it_was_given(facts: HostFacts) -> None:
    threads = list(Path(f"/proc/{facts.pid}/task").iterdir())
    assert {tuple(os.sched_getaffinity(int(thread.name))) for thread in threads} == {(0,)}


def test_it_is_no_nicer_than_it_must_be(facts: HostFacts) -> None:
    """Ray starts its workers with a niceness of 15; whoever may undo that has it undone."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    may_undo = bool(int(status["CapEff"], 16) >> 23 & 1)  # CAP_SYS_NICE
    assert os.getpriority(os.PRIO_PROCESS, facts.pid) == (0 if may_undo else 15)


def test_its_socket_is_this_users_alone(facts: HostFacts) -> None:
    folder = Path(facts.address.removeprefix("ipc://")).parent
    assert folder.stat().st_mode & 0o777 == 0o700


def test_simultaneous_starts_end_in_one_actor(cluster: str, pack: EditPack) -> None:
    config = CONFIG.model_copy(update={"name": "at once"})
    with ThreadPoolExecutor(3) as pool:
        joined = list(pool.map(lambda _: ray_host.join(pack, config), range(3)))
    assert len({one.endpoint for one in joined}) == 1
    assert not any(one.is_own_cluster for one in joined)
    ray_host.stop("at once")


def test_another_pack_under_the_same_name_is_refused(
    facts: HostFacts, pack: EditPack, plug_in: ToyPlugIn, tmp_path: Path
) -> None:
    other = write_pack(plug_in, tmp_path / "other", edit="another")
    with pytest.raises(HostError) as caught:
        engine(other, plug_in, "shared")
    assert str(other.root) in str(caught.value)
    assert str(pack.root) in str(caught.value)


def test_a_host_that_cannot_start_says_why_and_frees_its_name(
    cluster: str, pack: EditPack, plug_in: ToyPlugIn, tmp_path: Path
) -> None:
    damaged = write_pack(plug_in, tmp_path / "damaged")
    (damaged.model_dir / "config.json").write_text("{}")
    far = CONFIG.model_copy(update={"cpus": (4095,)})
    huge = CONFIG.model_copy(update={"kv_cache_bytes": 2**50})  # more than any process can address
    cases = (
        (damaged, CONFIG, "config.json"),
        (pack, far, "4095"),
        (pack, huge, "no memory on cpu"),
    )
    for wrong, config, said in cases:
        with pytest.raises(HostError, match=said):
            ray_host.start("broken", wrong, config)
        eventually(lambda: "broken" not in [host.name for host in ray_host.list_hosts()])


def test_over_tcp_it_wants_its_token(cluster: str, pack: EditPack, plug_in: ToyPlugIn) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with running("tcp", pack, CONFIG.model_copy(update={"tcp": address})):
        endpoint = ray_host.join(pack, CONFIG.model_copy(update={"name": "tcp"})).endpoint
        assert endpoint.address == f"tcp://{address}"
        client = RemoteClient(endpoint, plug_in.vocabulary, config=CONFIG)
        client.send([Open(1, plug_in.llm_ids(PROMPTS[0]), alpha=1.0)])
        assert states(client.take([(1, 0)])) == [State.SPEAKING]
        client.shutdown()
        with pytest.raises(HostError, match="token"):
            RemoteClient(endpoint._replace(token=""), plug_in.vocabulary, config=CONFIG)


# What goes wrong.


def speaks(client: RemoteClient, plug_in: ToyPlugIn, handle: int) -> bool:
    """Whether a new request is answered."""
    client.send([Open(handle, plug_in.llm_ids(PROMPTS[handle % 4]), alpha=1.0)])
    return states(client.take([(handle, 0)])) == [State.SPEAKING]


def test_an_actor_that_is_killed_comes_again_and_nothing_leaks(
    cluster: str, pack: EditPack, plug_in: ToyPlugIn
) -> None:
    with running("killed", pack) as facts:
        client = engine(pack, plug_in, "killed")
        assert all(speaks(client, plug_in, handle) for handle in range(4))
        os.kill(facts.pid, signal.SIGKILL)
        # Another engine that comes at this moment waits for it, and does not take it for broken.
        late = ThreadPoolExecutor(1).submit(engine, pack, plug_in, "killed")
        client.send([Append(handle, 0, [5]) for handle in range(4)])
        answers = client.take([(handle, 1) for handle in range(4)])
        assert set(states(answers)) <= {State.LOST, State.UNKNOWN}
        handles = iter(range(100, 10_000))
        eventually(lambda: speaks(client, plug_in, next(handles)))
        restarted = ray_host.find("killed")
        assert restarted.pid != facts.pid
        assert restarted.address == facts.address
        tally = client.tally()
        assert tally["reconnects"] >= 1
        late.result(timeout=120).shutdown()
        client.send([Close(handle) for handle in range(next(handles))])
        assert client.tally()["texts"] == 0
        client.shutdown()
        eventually(lambda: not ray_host.find("killed").engines)


def test_an_actor_that_hangs_costs_deadlines_then_nothing_then_answers_again(
    cluster: str, pack: EditPack, plug_in: ToyPlugIn
) -> None:
    with running("hung", pack) as facts:
        client = engine(pack, plug_in, "hung")
        assert speaks(client, plug_in, 1)
        os.kill(facts.pid, signal.SIGSTOP)
        try:
            for handle in (2, 3, 4):
                assert not speaks(client, plug_in, handle)
            assert client.tally()["breaker_open"] == 1
            assert client.tally()["hard_deadlines"] == 3
            began = time.monotonic()
            assert not speaks(client, plug_in, 5)
            assert time.monotonic() - began < CONFIG.hard_deadline
        finally:
            os.kill(facts.pid, signal.SIGCONT)
        handles = iter(range(100, 10_000))
        eventually(lambda: speaks(client, plug_in, next(handles)))
        client.send([Close(handle) for handle in range(next(handles))])
        tally = client.tally()
        assert (tally["texts"], tally["breaker_open"]) == (0, 0)
        assert tally["breaker_openings"] >= 1
        client.shutdown()


def test_a_client_that_vanishes_is_forgotten(
    client: RemoteClient, pack: EditPack, plug_in: ToyPlugIn
) -> None:
    gone = engine(pack, plug_in, "shared")
    assert speaks(gone, plug_in, 1)
    assert speaks(client, plug_in, 1)
    eventually(lambda: ray_host.find("shared").num_texts == 2)
    gone._heartbeat.stop()  # and says nothing more
    eventually(lambda: ray_host.find("shared").num_texts == 1)
    assert len(ray_host.find("shared").engines) == 1
    client.send([Append(1, 0, [5])])
    assert states(client.take([(1, 1)])) == [State.SPEAKING]
    gone.shutdown()


def test_what_cannot_be_read_is_answered_and_harms_nobody(
    client: RemoteClient, facts: HostFacts, plug_in: ToyPlugIn
) -> None:
    context: Any = zmq.Context()
    stranger = Engine(context, facts.address, "stranger")
    assert "cannot be read" in stranger.ask(b"\xc1").reason  # type: ignore[union-attr]
    stranger.socket.close()
    context.term()
    assert speaks(client, plug_in, 1)


# The commands.


def test_the_commands_start_list_and_stop_a_host(cluster: str, pack: EditPack) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command("host", *arguments, RAY_ADDRESS=cluster)

    started = run("start", str(pack.root), "--name", "commanded", "--cpus", "0", "--json", "-")
    assert started.returncode == 0, started.stderr
    assert json.loads(started.stdout)["name"] == "commanded"
    listed = {host["name"]: host for host in json.loads(run("list", "--json", "-").stdout)}
    assert listed["commanded"]["pack"] == str(pack.root)
    assert (listed["commanded"]["num_edits"], listed["commanded"]["texts"]) == (1, 0)
    assert "token" not in listed["commanded"]
    taken = run("start", str(pack.root), "--name", "commanded")
    assert (taken.returncode, "is running already" in taken.stderr) == (2, True)
    assert run("stop", "commanded").returncode == 0
    unknown = run("stop", "commanded")
    assert (unknown.returncode, "there is no plug-in host" in unknown.stderr) == (2, True)


def test_an_unknown_name_is_bad_input(cluster: str) -> None:
    for act in (ray_host.find, ray_host.stop):
        with pytest.raises(BadInputError, match="'nobody'"):
            act("nobody")


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`onceedit` in a process of its own."""
    command = [sys.executable, "-c", "from onceedit_vllm.cli.main import app; app()", *arguments]
    env = {**os.environ, "COLUMNS": "400", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
