"""A host's socket: whose turn it is, who is forgotten, and what cannot be read. No model is in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import zmq

from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.errors import BadInputError, HostError
from onceedit_vllm.plugin.host import ActivePack, Vocabulary
from onceedit_vllm.plugin.packets import Append, Close, Event, Open, State
from onceedit_vllm.plugin.runtime import PlugInOutput, PlugInStep
from onceedit_vllm.plugin.server import PlugInServer
from onceedit_vllm.plugin.wire import (
    VERSION,
    Activated,
    Attach,
    Attached,
    Beat,
    Counted,
    Detach,
    More,
    NamedPack,
    Refused,
    Reply,
    Request,
    Said,
    Step,
    Tally,
    Unattached,
    VocabularyBytes,
    decode_reply,
    encode,
)
from tests.unit.plugin.fakes import EDITED, EDITS, VOCAB, FakePacks, FakeRuntime, client_of, some_epochs

SURFACE = Surface("byte-level", [b"a"] * VOCAB, frozenset(), frozenset(), 0, strips_prefix_space=False)
VOCABULARY = Vocabulary(SURFACE, torch.arange(VOCAB), Spellings.of({}), VOCAB)


class SlowRuntime(FakeRuntime):
    """Notes the text of every step's rows, and can be held up in the middle of one."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[list[Sequence[int]]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def step(self, steps: Sequence[PlugInStep]) -> PlugInOutput:
        self.read.append([step.token_ids for step in steps])
        self.may_go_on.wait(30)
        return super().step(steps)


class Host(FakePacks):
    """Stands in for a `LocalHost`: every engine reads with the same runtimes, one for each pack."""

    def __init__(self, runtime: FakeRuntime, *more: FakeRuntime) -> None:
        super().__init__(*some_epochs(runtime, *more))
        self.error: Exception | None = None

    def attach(self, vocabulary: Vocabulary, threshold: float | None = None) -> Any:
        if self.error is not None:
            raise self.error
        return client_of(self)


class Engine:
    """Speaks the host's language by hand."""

    def __init__(self, context: Any, address: str, name: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, name.encode())
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(address)

    def say(self, request: Request | bytes) -> None:
        self.socket.send(request if isinstance(request, bytes) else encode(request))

    def hear(self) -> Reply:
        assert self.socket.poll(20_000), "no reply"
        return decode_reply(self.socket.recv())

    def ask(self, request: Request | bytes) -> Reply:
        self.say(request)
        return self.hear()

    def attach(self, session: int = 1, **fields: Any) -> Reply:
        values: dict[str, Any] = {
            "version": VERSION,
            "session": session,
            "token": "",
            "pack": "",
            "threshold": None,
        }
        return self.ask(Attach(**(values | fields), vocabulary=VocabularyBytes.of(VOCABULARY)))

    def step(self, *events: Event, session: int = 1) -> dict[int, State]:
        said = self.ask(Step(session, list(events)))
        assert isinstance(said, Said)
        return {packet.handle: packet.state for packet in said.packets}


@pytest.fixture
def runtime() -> SlowRuntime:
    return SlowRuntime()


@pytest.fixture
def host(runtime: SlowRuntime) -> Host:
    return Host(runtime)


@pytest.fixture
def serve(host: Host, tmp_path: Path) -> Iterator[Callable[..., PlugInServer]]:
    servers = []

    def start(other: Any = host, **settings: Any) -> PlugInServer:
        servers.append(PlugInServer(other, f"ipc://{tmp_path / 'socket'}", **settings))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[[str], Engine]]:
    context: Any = zmq.Context()
    made = []

    def make(name: str) -> Engine:
        made.append(Engine(context, f"ipc://{tmp_path / 'socket'}", name))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()
    context.term()


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_engine_attaches_and_is_answered(serve, engine) -> None:
    serve()
    one = engine("one")
    attached = one.attach()
    assert isinstance(attached, Attached)
    assert len(attached.targets) == 4 * VOCAB
    assert one.step(Open(1, [EDITED, 2]), Open(2, [1])) == {1: State.SPEAKING, 2: State.CLOSED}
    assert one.step(Append(1, 0, [3]), Append(5, 0, [3]), Close(9)) == {1: State.SPEAKING, 5: State.UNKNOWN}
    whole = one.ask(More(1, [(1, 1), (8, 0)]))
    assert isinstance(whole, Said)
    assert [packet.state for packet in whole.packets] == [State.SPEAKING, State.UNKNOWN]
    assert whole.packets[0].listed is not None
    assert whole.packets[0].listed.ids is None
    counted = one.ask(Tally(1, 7))
    assert isinstance(counted, Counted)
    assert counted.number == 7
    assert (counted.counts["plugin_forwards"], counted.counts["texts"]) == (2, 1)


def test_a_message_of_endings_alone_is_not_answered(serve, engine) -> None:
    serve()
    one = engine("one")
    one.attach()
    one.say(Step(1, [Close(1)]))
    one.say(Step(1, [Open(2, [EDITED]), Close(2)]))
    assert isinstance(one.ask(Tally(1, 1)), Counted)


def test_what_is_pipelined_behind_an_attachment_is_answered_in_order(serve, engine) -> None:
    serve()
    one = engine("one")
    one.say(Attach(VERSION, 1, "", "", None, VocabularyBytes.of(VOCABULARY)))
    one.say(Step(1, [Open(1, [EDITED])]))
    one.say(Step(1, [Append(1, 0, [2])]))
    kinds = [type(one.hear()) for _ in range(3)]
    assert kinds == [Attached, Said, Said]


def test_another_engines_row_waits_for_two_steps_at_most(serve, engine, runtime: SlowRuntime) -> None:
    serve()
    busy, other = engine("busy"), engine("other")
    busy.attach()
    other.attach()
    runtime.may_go_on.clear()
    busy.say(Step(1, [Open(i, [EDITED], alpha=1.0) for i in range(32)]))
    eventually(lambda: len(runtime.read) == 1)
    for length in range(4):
        busy.say(Step(1, [Append(i, length, [3]) for i in range(32)]))
    other.say(Step(1, [Open(1, [EDITED, 4], alpha=1.0)]))
    time.sleep(0.2)  # all of it has arrived
    runtime.may_go_on.set()
    assert isinstance(other.hear(), Said)
    for _ in range(5):
        busy.hear()
    sizes = [len(rows) for rows in runtime.read]
    assert sorted(sizes) == [1, 32, 32, 32, 32, 32]
    assert sizes.index(1) <= 2


def test_an_engine_that_vanishes_is_forgotten_and_one_that_beats_is_not(
    serve, engine, runtime: SlowRuntime
) -> None:
    server = serve(lease=0.5)
    gone, alive, heart = engine("gone"), engine("alive"), engine("heart")
    for one in (gone, alive):
        one.attach()
        one.step(Open(1, [EDITED], alpha=1.0))
    assert len(runtime.texts) == 2
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        heart.say(Beat("alive"))
        time.sleep(0.05)
    assert len(runtime.texts) == 1
    assert [stats["engine"] for stats in server.stats()] == ["alive"]
    assert alive.step(Append(1, 0, [3])) == {1: State.SPEAKING}
    assert gone.ask(Step(1, [Append(1, 0, [3])])) == Unattached(1)


def test_attaching_again_forgets_what_was_before(serve, engine, runtime: SlowRuntime) -> None:
    serve()
    one = engine("one")
    one.attach(1)
    one.step(Open(1, [EDITED], alpha=1.0))
    one.attach(2)
    assert runtime.texts == {}
    assert one.ask(Step(1, [Append(1, 0, [3])])) == Unattached(1)
    assert one.step(Append(1, 0, [3]), session=2) == {1: State.UNKNOWN}


def test_detaching_and_stopping_leave_nothing(serve, engine, runtime: SlowRuntime, tmp_path: Path) -> None:
    server = serve()
    for name in ("one", "two"):
        one = engine(name)
        one.attach()
        one.step(Open(1, [EDITED], alpha=1.0))
        if name == "one":
            one.say(Detach(1))
            eventually(lambda: runtime.texts == {})
    assert len(runtime.texts) == 1
    server.stop()
    server.stop()
    assert runtime.texts == {}
    assert list(tmp_path.iterdir()) == []


def test_a_stranger_is_asked_who_it_is(serve, engine) -> None:
    serve()
    for request in (Step(3, [Open(1, [2])]), Tally(3, 1), More(3, [(1, 0)]), Detach(3)):
        assert engine(f"stranger {type(request)}").ask(request) == Unattached(3)


@pytest.mark.parametrize("junk", [b"", b"\xff", b"GET / HTTP/1.1\r\n", b"\x93\xa4Step\x01\xc0", bytes(1000)])
def test_what_cannot_be_read_is_refused_and_harms_nobody(serve, engine, junk: bytes) -> None:
    serve()
    one, other = engine("one"), engine("other")
    one.attach()
    refused = other.ask(junk)
    assert isinstance(refused, Refused)
    assert "cannot be read" in refused.reason
    refused = one.ask(junk)
    assert isinstance(refused, Refused)
    assert refused.session == 1
    assert one.step(Open(1, [EDITED])) == {1: State.SPEAKING}
    counted = one.ask(Tally(1, 1))
    assert isinstance(counted, Counted)
    assert counted.counts["unparsable"] == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": VERSION + 1}, f"version {VERSION} and the engine version {VERSION + 1}"),
        ({"token": "guess"}, "token"),
        ({"token": "söme"}, "token"),
        ({"pack": "p"}, "never served the engine's pack"),
    ],
)
def test_who_does_not_fit_is_refused(serve, engine, fields: dict[str, Any], said: str) -> None:
    serve(token="secret", packs=["o", "q"])
    one = engine("one")
    refused = one.attach(**({"token": "secret"} | fields))
    assert isinstance(refused, Refused)
    assert said in refused.reason
    assert isinstance(one.attach(2, token="secret", pack="q"), Attached)


def test_a_vocabulary_that_cannot_be_used_is_refused(serve, engine, host: Host) -> None:
    serve()
    host.error = BadInputError("no room for a prompt")
    one = engine("one")
    assert one.attach() == Refused(1, "no room for a prompt")
    host.error = None
    assert isinstance(one.attach(2), Attached)


def test_a_plugin_that_is_gone_loses_the_rows_and_not_the_host(serve, engine, runtime: SlowRuntime) -> None:
    serve()
    one = engine("one")
    one.attach()
    runtime.fails = True
    assert one.step(Open(1, [EDITED]), Open(2, [EDITED, 1])) == {1: State.LOST, 2: State.LOST}
    runtime.fails = False
    assert one.step(Open(1, [EDITED])) == {1: State.SPEAKING}


# Another pack.


def test_every_engine_is_told_of_another_pack_and_keeps_its_texts(serve, engine, tmp_path: Path) -> None:
    older, newer = FakeRuntime(), FakeRuntime()
    host: Any = Host(older, newer)
    server = serve(host)
    engines = [engine(name) for name in ("one", "two")]
    for one in engines:
        attached = one.attach()
        assert attached.active == NamedPack.of(ActivePack(1, EDITS))
        one.step(Open(1, [EDITED], alpha=1.0))
    server.activate(2)
    assert [one.hear() for one in engines] == [Activated(1, NamedPack.of(ActivePack(2, EDITS)))] * 2
    for one in engines:
        assert one.step(Append(1, 0, [3]), Open(2, [EDITED], alpha=1.0)) == dict.fromkeys(
            (1, 2), State.SPEAKING
        )
    assert (len(older.texts), len(newer.texts)) == (2, 2)
    for one in engines:
        one.say(Step(1, [Close(1)]))
    eventually(lambda: host.tally()["packs"] == 1)
    late = engine("late").attach()
    assert late.active.epoch == 2


def test_an_earlier_pack_goes_after_its_deadline_although_nothing_happens(
    serve, engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onceedit_vllm.plugin.packs._RETIRE_SECONDS", 0.5)
    older = FakeRuntime()
    host: Any = Host(older, FakeRuntime())
    server = serve(host)
    one = engine("one")
    one.attach()
    one.step(Open(1, [EDITED], alpha=1.0))
    server.activate(2)
    one.hear()
    assert len(older.texts) == 1
    eventually(lambda: host.tally()["packs"] == 1)
    assert older.texts == {}
    assert one.step(Append(1, 0, [3])) == {1: State.UNKNOWN}


def test_a_pack_that_is_not_there_is_not_activated_and_the_host_serves_on(serve, engine) -> None:
    server = serve()
    with pytest.raises(BadInputError, match="no pack number 9"):
        server.activate(9)
    attached = engine("one").attach()
    assert attached.active.epoch == 1


def test_engines_that_are_started_with_the_new_pack_may_attach(serve, engine) -> None:
    host: Any = Host(FakeRuntime(), FakeRuntime())
    server = serve(host, packs=["p"])
    assert isinstance(engine("early").attach(pack="q"), Refused)
    server.activate(2, "q")
    assert [type(engine(pack).attach(pack=pack)) for pack in ("p", "q", "r")] == [Attached, Attached, Refused]


def test_what_is_asked_of_a_server_that_has_ended_is_an_error(serve) -> None:
    server = serve()
    server.stop()
    with pytest.raises(HostError, match="has ended"):
        server.activate(1)


def test_an_address_that_cannot_be_taken_is_an_error(host: Host, tmp_path: Path) -> None:
    server = PlugInServer(host, f"ipc://{tmp_path}/no/such/folder/socket")  # type: ignore[arg-type]
    with pytest.raises(HostError, match="cannot listen"):
        server.start()
