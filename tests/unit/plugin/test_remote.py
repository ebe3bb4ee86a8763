"""An engine's end over a real socket: a host that serves in a thread, and one that misbehaves by the book."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import HostError
from onceedit_vllm.plugin.local import LocalHost
from onceedit_vllm.plugin.packets import Answers, Append, Close, Open, State
from onceedit_vllm.plugin.remote import Endpoint, RemoteClient
from onceedit_vllm.plugin.server import PlugInServer
from onceedit_vllm.plugin.wire import (
    Attach,
    Attached,
    Beat,
    Listed,
    More,
    NamedPack,
    Packet,
    Refused,
    Reply,
    Request,
    Said,
    Step,
    Unattached,
    decode_request,
    encode,
    ids_bytes,
)
from tests.unit.plugin.client_contract import PROMPTS, ClientContract, ToyPlugIn, plug_in, states
from tests.unit.plugin.fakes import EDITED, EDITS, VOCAB, FakeRuntime
from tests.unit.plugin.test_server import VOCABULARY, Host

__all__ = ["plug_in"]  # the fixture

FIRST = NamedPack(1, [("Oslo is in", "Lima", "Oslo", ())])
QUICK = PlugInConfig(
    soft_deadline=0.02, hard_deadline=0.15, first_deadline=0.3, attach_deadline=5, retry_seconds=0.3
)


@pytest.fixture(scope="module")
def endpoint(plug_in: ToyPlugIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    address = f"ipc://{tmp_path_factory.mktemp('host') / 'socket'}"
    host = LocalHost(plug_in.pack, PlugInConfig(device="cpu"))
    server = PlugInServer(host, address, token="t", packs=["p"])
    server.start()
    yield Endpoint(address, "t", "p")
    server.stop()


@pytest.fixture
def client(endpoint: Endpoint, plug_in: ToyPlugIn) -> Iterator[RemoteClient]:
    client = RemoteClient(endpoint, plug_in.vocabulary)
    yield client
    client.shutdown()


class TestRemoteClient(ClientContract):
    """Over a socket; lists are cut."""


def test_whole_lists_where_they_were_asked_for_at_the_start(client: RemoteClient, plug_in: ToyPlugIn) -> None:
    prompts = [plug_in.llm_ids(prompt) for prompt in PROMPTS[:2]]
    client.send([Open(0, prompts[0], alpha=1.0, whole=True), Open(1, prompts[1], alpha=1.0, whole=True)])
    answers = client.take([(0, 0), (1, 0)])
    assert answers.lists is not None
    assert answers.lists.whole
    ClientContract().check(answers, plug_in, [(prompts[0], []), (prompts[1], [])])
    assert answers.lists.ids.stride()[0] == 0
    client.send([Append(0, 0, [9])])
    later = client.take([(0, 1), (1, 0)]).lists
    assert later is not None
    assert later.whole
    assert later.ids.data_ptr() == answers.lists.ids.data_ptr()


def test_a_host_with_another_token_or_pack_is_no_host(endpoint: Endpoint, plug_in: ToyPlugIn) -> None:
    for wrong, said in (
        (endpoint._replace(token="x"), "token"),
        (endpoint._replace(pack="x"), "never served"),
    ):
        with pytest.raises(HostError, match=said):
            RemoteClient(wrong, plug_in.vocabulary, config=QUICK)


def test_no_host_at_all(tmp_path: Path) -> None:
    config = PlugInConfig(attach_deadline=0.2)
    with pytest.raises(HostError, match="has not answered"):
        RemoteClient(Endpoint(f"ipc://{tmp_path / 'nobody'}"), VOCABULARY, config=config)


# Hosts that stop, die and come again.


class Served:
    """A server that can be taken away and put back."""

    def __init__(self, folder: Path) -> None:
        self.runtime, self.newer = FakeRuntime(), FakeRuntime()
        self.address = f"ipc://{folder / 'socket'}"
        self.server: PlugInServer | None = None
        self.start()

    def start(self) -> None:
        host: Any = Host(self.runtime, self.newer)
        self.server = PlugInServer(host, self.address, lease=5.0)
        self.server.start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.stop()
            self.server = None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.stop()


@pytest.fixture
def quick(served: Served) -> Iterator[RemoteClient]:
    client = RemoteClient(Endpoint(served.address), VOCABULARY, config=QUICK, interval=0.2)
    yield client
    client.shutdown()


def ask(client: RemoteClient, *events: Any, wanted: list[tuple[int, int]]) -> list[State]:
    client.send(events)
    return states(client.take(wanted))


def after(seconds: float, act: Callable[[], bool]) -> None:
    """Try until it comes true."""
    until = time.monotonic() + seconds
    while not act():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_host_that_restarted_does_not_know_and_learns_again(quick: RemoteClient, served: Served) -> None:
    assert ask(quick, Open(1, [EDITED], alpha=1.0), wanted=[(1, 0)]) == [State.SPEAKING]
    served.stop()
    served.start()
    after(5, lambda: bool(quick._socket.poll(0, zmq.POLLOUT)))
    assert ask(quick, Append(1, 0, [3]), wanted=[(1, 1)]) == [State.UNKNOWN]
    assert ask(quick, Open(2, [EDITED], [3], alpha=1.0), wanted=[(2, 1)]) == [State.SPEAKING]
    tally = quick.tally()
    assert (tally["reconnects"], tally["breaker_openings"], tally["texts"]) == (1, 0, 1)
    quick.shutdown()
    after(5, lambda: not served.runtime.texts)


def test_a_host_that_died_loses_the_rows_then_is_left_alone_then_is_tried_again(
    quick: RemoteClient, served: Served
) -> None:
    assert ask(quick, Open(1, [EDITED], alpha=1.0), wanted=[(1, 0)]) == [State.SPEAKING]
    served.stop()
    after(5, lambda: not quick._socket.poll(0, zmq.POLLOUT))
    for handle in (2, 3, 4):
        began = time.monotonic()
        assert ask(quick, Open(handle, [EDITED], alpha=1.0), wanted=[(handle, 0)]) == [State.LOST]
        assert time.monotonic() - began < QUICK.hard_deadline  # it is known to be away: nothing to wait for
    assert quick.tally()["breaker_openings"] == 1
    served.start()
    assert ask(quick, Open(5, [EDITED], alpha=1.0), wanted=[(5, 0)]) == [State.LOST]
    time.sleep(QUICK.retry_seconds)
    handles = iter(range(10, 1000))

    def answers() -> bool:
        handle = next(handles)
        return ask(quick, Open(handle, [EDITED], alpha=1.0), wanted=[(handle, 0)]) == [State.SPEAKING]

    after(10, answers)
    assert len(served.runtime.texts) == quick.tally()["texts"]


def test_a_client_that_is_alive_is_not_forgotten_however_idle(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    server = PlugInServer(Host(runtime), f"ipc://{tmp_path / 'socket'}", lease=0.6)  # type: ignore[arg-type]
    server.start()
    client = RemoteClient(Endpoint(f"ipc://{tmp_path / 'socket'}"), VOCABULARY, config=QUICK, interval=0.1)
    ask(client, Open(1, [EDITED], alpha=1.0), wanted=[(1, 0)])
    time.sleep(1.5)
    assert ask(client, Append(1, 0, [3]), wanted=[(1, 1)]) == [State.SPEAKING]
    client._heartbeat.stop()
    after(5, lambda: not runtime.texts)
    client.shutdown()
    server.stop()


def test_a_swap_reaches_an_engine_without_a_step_and_texts_stay_with_their_pack(
    quick: RemoteClient, served: Served
) -> None:
    assert served.server is not None
    assert quick.active.epoch == 1
    assert [edit.subject for edit in quick.active.edits] == [edit.subject for edit in EDITS]
    ask(quick, Open(1, [EDITED], alpha=1.0, epoch=1), wanted=[(1, 0)])
    served.server.activate(2)
    after(5, lambda: quick.active.epoch == 2)
    events = [Append(1, 0, [3]), Open(2, [EDITED, 4], alpha=1.0, epoch=2), Open(3, [EDITED, 5], epoch=1)]
    assert ask(quick, *events, wanted=[(1, 1), (2, 0), (3, 0)]) == [State.SPEAKING] * 3
    assert sorted(served.runtime.texts.values()) == [[EDITED, 3], [EDITED, 5]]
    assert list(served.newer.texts.values()) == [[EDITED, 4]]
    ask(quick, Close(1), Close(3), wanted=[])
    assert (quick.tally()["epoch"], quick.tally()["packs"]) == (2, 1)
    assert ask(quick, Open(4, [EDITED], epoch=1), wanted=[(4, 0)]) == [State.UNKNOWN]


def test_an_engine_that_missed_a_swap_learns_of_it_when_it_attaches_again(
    quick: RemoteClient, served: Served
) -> None:
    served.stop()
    served.start()
    assert served.server is not None
    served.server.activate(2)
    after(5, lambda: bool(quick._socket.poll(0, zmq.POLLOUT)))
    assert quick.active.epoch == 1  # nobody has told it
    assert ask(quick, Open(1, [EDITED], epoch=1), wanted=[(1, 0)]) == [State.UNKNOWN]  # who is it?
    assert ask(quick, Open(2, [EDITED], epoch=1), wanted=[(2, 0)]) == [State.UNKNOWN]  # which pack?
    assert quick.active.epoch == 2
    assert ask(quick, Open(3, [EDITED], epoch=2), wanted=[(3, 0)]) == [State.SPEAKING]
    quick.shutdown()
    assert quick.active.epoch == 2


# A host that misbehaves by the book.


class Script:
    """A host whose every word a test decides."""

    def __init__(self, folder: Path) -> None:
        self.context: Any = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.address = f"ipc://{folder / 'socket'}"
        self.socket.bind(self.address)

    def hear(self) -> tuple[bytes, Request]:
        while True:
            assert self.socket.poll(5000), "nothing was sent"
            name, data = self.socket.recv_multipart()
            request = decode_request(data)
            if not isinstance(request, Beat):
                return name, request

    def say(self, name: bytes, reply: Reply | bytes) -> None:
        self.socket.send_multipart([name, reply if isinstance(reply, bytes) else encode(reply)])

    def client(self) -> tuple[bytes, RemoteClient]:
        """Attach one: everything in this thread, so the answer is sent ahead."""
        import threading

        made: list[RemoteClient] = []
        maker = threading.Thread(
            target=lambda: made.append(RemoteClient(Endpoint(self.address), VOCABULARY, config=QUICK))
        )
        maker.start()
        name, attach = self.hear()
        assert isinstance(attach, Attach)
        self.say(name, Attached(attach.session, ids_bytes(torch.arange(VOCAB)), FIRST))
        maker.join()
        return name, made[0]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    script = Script(tmp_path)
    yield script
    script.context.destroy(linger=0)


@pytest.fixture
def scripted(script: Script) -> Iterator[tuple[bytes, RemoteClient]]:
    name, client = script.client()
    yield name, client
    client.shutdown()


def speaks(handle: int, length: int, *tokens: int) -> Packet:
    listed = Listed(ids_bytes(torch.tensor(tokens)), b"\0\0\x80\x3f" * len(tokens), 0.0)
    return Packet(handle, length, State.SPEAKING, 1.0, listed)


def test_only_the_late_row_is_lost_and_what_comes_late_is_left(
    script: Script, scripted: tuple[bytes, RemoteClient]
) -> None:
    name, client = scripted
    client.send([Open(1, [2]), Open(2, [2])])
    script.hear()
    script.say(name, Said(1, [speaks(1, 0, 5)]))
    began = time.monotonic()
    answers = client.take([(1, 0), (2, 0)])
    assert time.monotonic() - began >= QUICK.first_deadline
    assert states(answers) == [State.SPEAKING, State.LOST]
    assert answers.lists is not None
    assert answers.lists.ids.tolist() == [[5]]
    assert script.hear()[1] == Step(1, [Close(2)])
    script.say(name, Said(1, [speaks(2, 0, 6)]))
    client.send([Append(1, 0, [5])])
    script.say(name, Said(1, [speaks(1, 1, 7)]))
    assert states(client.take([(1, 1), (2, 0)])) == [State.SPEAKING, State.UNKNOWN]
    tally = client._counts
    assert (tally["hard_deadlines"], tally["soft_deadlines"]) == (1, 1)


def test_a_row_that_was_answered_before_has_the_shorter_deadline(
    script: Script, scripted: tuple[bytes, RemoteClient]
) -> None:
    name, client = scripted
    client.send([Open(1, [2])])
    script.say(name, Said(1, [speaks(1, 0, 5)]))
    client.take([(1, 0)])
    client.send([Append(1, 0, [5])])
    began = time.monotonic()
    assert states(client.take([(1, 1)])) == [State.LOST]
    assert QUICK.hard_deadline <= time.monotonic() - began < QUICK.first_deadline


@pytest.mark.parametrize(
    "junk",
    [
        b"\xc1",
        b"",
        encode(Said(1, [Packet(1, 0, State.SPEAKING, 1.0)])),
        encode(Said(1, [Packet(1, 0, State.SPEAKING, 1.0, Listed(b"123", b"", 0.0))])),
        encode(Said(1, [Packet(1, 0, State.SPEAKING, 1.0, Listed(b"\0\1\0\0", b"\0\0\0\0", 0.0))])),
        encode(Said(1, [Packet(1, 0, State.SPEAKING, 1.0, Listed(None, b"\0\0\0\0", 0.0))])),
        encode(Refused(0, "a message of 3 bytes cannot be read")),
    ],
)
def test_a_reply_that_cannot_be_used_is_left_out(
    script: Script, scripted: tuple[bytes, RemoteClient], junk: bytes
) -> None:
    name, client = scripted
    client.send([Open(1, [2])])
    script.say(name, junk)
    assert states(client.take([(1, 0)])) == [State.LOST]
    assert client._counts["unparsable"] == 1


def test_what_belongs_to_an_older_attachment_is_not_taken(
    script: Script, scripted: tuple[bytes, RemoteClient]
) -> None:
    name, client = scripted
    client.send([Open(1, [2])])
    script.say(name, Unattached(0))
    script.say(name, Unattached(1))
    assert states(client.take([(1, 0)])) == [State.UNKNOWN]
    client.send([Open(2, [2])])
    heard = [script.hear()[1] for _ in range(3)]
    assert [type(request) for request in heard] == [Step, Attach, Step]
    assert isinstance(heard[1], Attach)
    assert heard[1].session == 2
    script.say(name, Said(1, [speaks(2, 0, 5)]))
    script.say(name, Attached(2, ids_bytes(torch.arange(VOCAB)), FIRST))
    script.say(name, Said(2, [speaks(2, 0, 6)]))
    answers = client.take([(2, 0)])
    assert answers.lists is not None
    assert answers.lists.ids.tolist() == [[6]]


def test_a_host_that_refuses_later_is_left_alone_in_the_end(
    script: Script, scripted: tuple[bytes, RemoteClient]
) -> None:
    name, client = scripted
    client.send([Open(0, [2])])
    script.say(name, Unattached(1))
    assert states(client.take([(0, 0)])) == [State.UNKNOWN]
    for session in (2, 3, 4):
        client.send([Open(session, [2])])
        script.say(name, Refused(session, "another pack"))
        expected = State.LOST if session == 4 else State.UNKNOWN
        assert states(client.take([(session, 0)])) == [expected]
    assert client.tally()["breaker_openings"] == 1


def test_a_whole_list_that_does_not_come_is_silence_and_the_row_is_lost(
    script: Script, scripted: tuple[bytes, RemoteClient]
) -> None:
    name, client = scripted
    client.send([Open(1, [2]), Open(2, [2])])
    script.say(name, Said(1, [speaks(1, 0, 5), speaks(2, 0, 5)]))
    client.take([(1, 0), (2, 0)])
    script.hear()
    row = Listed(None, b"\0\0\x80\x3f" * VOCAB, 0.0)
    script.say(name, Said(1, [Packet(2, 0, State.SPEAKING, 1.0, row)]))
    lists = client.more([1, 2])
    assert script.hear()[1] == More(1, [(1, 0), (2, 0)])
    assert lists.whole
    assert lists.tail.isnan().tolist() == [True, False]
    assert lists.mass[1].tolist() == [1.0] * VOCAB
    client.send([Append(1, 0, [5]), Append(2, 0, [5])])
    script.say(name, Said(1, [speaks(1, 1, 5), speaks(2, 1, 5)]))
    assert states(client.take([(1, 1), (2, 1)])) == [State.LOST, State.SPEAKING]
    assert client._counts["more_requests"] == 2


def test_the_rows_that_came_are_kept_when_the_host_is_given_up(
    script: Script, scripted: tuple[bytes, RemoteClient]
) -> None:
    name, client = scripted
    for handle in (1, 2, 3):
        client.send([Open(handle, [2]), Open(handle + 10, [2])])
        script.say(name, Said(1, [speaks(handle, 0, 5)]))
        answers = client.take([(handle, 0), (handle + 10, 0)])
        assert states(answers) == [State.SPEAKING, State.LOST]
    assert states(client.take([(3, 0)])) == [State.LOST]
    client.send([Open(4, [2])])
    began = time.monotonic()
    assert states(client.take([(4, 0)])) == [State.LOST]
    assert states(client.take([])) == []
    assert client.more([4]).tail.isnan().all()
    assert time.monotonic() - began < 0.1
    assert client.tally()["breaker_openings"] == 1


def test_a_mixed_answer_is_a_cut_one(script: Script, scripted: tuple[bytes, RemoteClient]) -> None:
    name, client = scripted
    client.send([Open(1, [2]), Open(2, [2], whole=True)])
    row = Listed(None, b"\0\0\x80\x3f" * VOCAB, 0.0)
    script.say(name, Said(1, [speaks(1, 0, 5, 6), Packet(2, 0, State.SPEAKING, 1.0, row)]))
    answers: Answers = client.take([(1, 0), (2, 0)])
    assert answers.lists is not None
    assert not answers.lists.whole
    assert answers.lists.ids.tolist() == [[5, 6] + [-1] * (VOCAB - 2), list(range(VOCAB))]
