"""Serves one plug-in to several engines over a socket.

One thread takes their messages, runs the plug-in and answers; nothing that arrives can stop it. Engines have
turns: one message of each after the other, so that a busy one does not keep the others waiting. Another pack
is activated between two messages, on the same thread, and all engines are told.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from onceedit_vllm.errors import HostError, OnceEditError, WireError
from onceedit_vllm.plugin.client import LocalClient
from onceedit_vllm.plugin.host import ActivePack
from onceedit_vllm.plugin.jobs import Jobs
from onceedit_vllm.plugin.local import LocalHost
from onceedit_vllm.plugin.packets import Append, Close, Event, Open, State
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
    Packet,
    Refused,
    Reply,
    Request,
    Said,
    Step,
    Tally,
    Unattached,
    decode_request,
    encode,
    ids_bytes,
    packets_of,
)

logger = logging.getLogger("onceedit_vllm.plugin")

#: Seconds after which an engine that has not been heard of is forgotten, with its slots.
LEASE = 30.0
# Milliseconds between looks at what is not a message: the leases, the end, an attachment that is being made.
_IDLE, _ATTACHING = 100, 5


@dataclass
class _Engine:
    """An engine that is attached, or is being.

    Attributes:
        session: The number of its attachment.
        attaching: Makes its client, beside the serving thread.
        client: None while that is under way.
        whole: Its requests whose lists must not be cut.
        waiting: Its messages that have not had their turn.
        seen: When it was last heard of.
    """

    session: int
    attaching: Future[LocalClient]
    seen: float
    client: LocalClient | None = None
    whole: set[int] = field(default_factory=set)
    waiting: deque[Request] = field(default_factory=deque)


class PlugInServer:
    """Runs from :meth:`start` to :meth:`stop`.

    Args:
        host: The plug-in. While this serves it, nobody else may step it.
        address: ``ipc://PATH`` or ``tcp://HOST:PORT``.
        packs: Digests of the manifests of packs that engines may have been started with; none: any.
        token: What engines must show; empty: nothing.
        lease: See :data:`LEASE`.
    """

    def __init__(
        self,
        host: LocalHost,
        address: str,
        *,
        packs: Collection[str] = (),
        token: str = "",
        lease: float = LEASE,
    ) -> None:
        self._host = host
        self._address = address
        self._packs, self._token, self._lease = frozenset(packs), token, lease
        # In the order of their turns.
        self._engines: dict[bytes, _Engine] = {}
        self._active = NamedPack.of(_active_of(host))
        self._jobs = Jobs()
        self._counts: Counter[str] = Counter()
        self._stats: list[dict[str, Any]] = []
        self._ending = threading.Event()
        self._makers = ThreadPoolExecutor(1, "onceedit-attach")
        self._thread = threading.Thread(target=self._run, name="onceedit-plugin", daemon=True)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def start(self) -> None:
        """Take the address and begin to serve.

        Raises:
            HostError: The address cannot be taken.
        """
        self._socket = self._context.socket(zmq.ROUTER)
        # A client that has lost its connection comes again under its own name.
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        try:
            self._socket.bind(self._address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise HostError(
                f"the plug-in host cannot listen at {self._address} ({error}); name another place"
            ) from error
        self._thread.start()

    def stop(self) -> None:
        """End the thread, forget all engines and remove the socket file. Twice is harmless."""
        if self._ending.is_set():
            return
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._makers.shutdown(wait=False, cancel_futures=True)
        self._context.destroy(linger=0)
        if self._address.startswith("ipc://"):
            Path(self._address.removeprefix("ipc://")).unlink(missing_ok=True)

    def activate(self, number: int, pack: str = "") -> None:
        """Let new requests have a pack that the host has loaded; texts under way go on with theirs.

        From any thread; waits until it is so.

        Args:
            number: The pack's, at the host.
            pack: The digest of its manifest; engines that are started with it may attach from now on.

        Raises:
            BadInputError: There is none of this number.
            HostError: Nobody serves any more.
        """

        def act() -> None:
            self._host.activate(number)
            self._packs |= {pack}
            self._active = NamedPack.of(_active_of(self._host))
            for name, engine in self._engines.items():
                if engine.client is not None:
                    self._reply(name, Activated(engine.session, self._active))

        self._jobs.ask(act)

    def stats(self) -> list[dict[str, Any]]:
        """Of each engine: its name, what was counted, and the texts that are followed for it.

        As of the end of the last step; may be asked from any thread, and never waits.
        """
        return self._stats

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._go_on()
            except Exception as error:
                # Nothing is known to come here; all the same, the other engines need the thread.
                self._report("serving", error)
        self._jobs.end()
        for name in list(self._engines):
            self._forget(name)

    def _go_on(self) -> None:
        """Whatever has arrived, and one message that waits."""
        self._receive(self._patience())
        self._jobs.do_all()
        self._settle()
        self._forget_vanished()
        self._host.retire()
        self._take_turn()
        self._stats = [
            {"engine": name.decode(errors="replace"), **engine.client.tally()}
            for name, engine in self._engines.items()
            if engine.client is not None
        ]

    def _patience(self) -> int:
        """Milliseconds to wait for a message."""
        if any(engine.client is not None and engine.waiting for engine in self._engines.values()):
            return 0
        is_attaching = any(engine.client is None for engine in self._engines.values())
        return _ATTACHING if is_attaching else _IDLE

    def _receive(self, patience: int) -> None:
        """Put the messages that are there into the queues of their engines."""
        while self._socket.poll(patience):
            patience = 0
            name, *frames = self._socket.recv_multipart()
            try:
                self._sort_in(name, decode_request(b"".join(frames)))
            except WireError as error:
                self._counts["unparsable"] += 1
                engine = self._engines.get(name)
                self._reply(name, Refused(0 if engine is None else engine.session, str(error)))
                self._report("reading a message", error)

    def _sort_in(self, name: bytes, request: Request) -> None:
        now = time.monotonic()
        if isinstance(request, Beat):
            beating = self._engines.get(request.engine.encode())
            if beating is not None:
                beating.seen = now
        elif isinstance(request, Attach):
            self._attach(name, request, now)
        else:
            engine = self._engines.get(name)
            if engine is None or engine.session != request.session:
                self._reply(name, Unattached(request.session))
                return
            engine.seen = now
            engine.waiting.append(request)

    def _attach(self, name: bytes, request: Attach, now: float) -> None:
        self._forget(name)
        reason = self._objection(request)
        if reason is not None:
            self._reply(name, Refused(request.session, reason))
            return

        def make() -> LocalClient:
            return self._host.attach(request.vocabulary.read(), request.threshold)

        # It takes a second with large vocabularies: beside the steps of the others.
        self._engines[name] = _Engine(request.session, self._makers.submit(make), now)

    def _objection(self, request: Attach) -> str | None:
        if request.version != VERSION:
            return (
                f"the host speaks version {VERSION} and the engine version {request.version}; run the same "
                "version of onceedit-vllm for both"
            )
        if not hmac.compare_digest(request.token.encode(), self._token.encode()):
            return "the token is not the host's; take the endpoint from the host"
        if request.pack and self._packs and request.pack not in self._packs:
            return "the host has never served the engine's pack; start the engine with one that it has"
        return None

    def _settle(self) -> None:
        """Let the engines in whose clients are made."""
        for name, engine in list(self._engines.items()):
            if engine.client is not None or not engine.attaching.done():
                continue
            try:
                engine.client = engine.attaching.result()
            except Exception as error:
                del self._engines[name]
                self._reply(name, Refused(engine.session, str(error)))
                if not isinstance(error, OnceEditError):
                    self._report("attaching an engine", error)
            else:
                engine.seen = time.monotonic()
                targets = ids_bytes(engine.client.targets)
                self._reply(name, Attached(engine.session, targets, self._active))

    def _forget_vanished(self) -> None:
        latest = time.monotonic() - self._lease
        for name in [name for name, engine in self._engines.items() if engine.seen < latest]:
            # One that is still being made beats already.
            logger.warning("onceedit: an engine has not been heard of for %.0f s; forgotten", self._lease)
            self._forget(name)

    def _forget(self, name: bytes) -> None:
        engine = self._engines.pop(name, None)
        if engine is not None and engine.client is not None:
            engine.client.shutdown()

    def _take_turn(self) -> None:
        """Answer the first message of the engine whose turn it is, which then is the last in line."""
        for name, engine in self._engines.items():
            if engine.client is not None and engine.waiting:
                request = engine.waiting.popleft()
                self._engines[name] = self._engines.pop(name)
                self._serve(name, engine, engine.client, request)
                return

    def _serve(self, name: bytes, engine: _Engine, client: LocalClient, request: Request) -> None:
        if isinstance(request, Step):
            packets = _step(engine, client, request.events)
            if packets:
                self._reply(name, Said(engine.session, packets))
        elif isinstance(request, More):
            packets = _ask(client, request.wanted, [True] * len(request.wanted))
            self._reply(name, Said(engine.session, packets))
        elif isinstance(request, Tally):
            counts = {**client.tally(), **self._counts}
            self._reply(name, Counted(engine.session, request.number, counts))
        elif isinstance(request, Detach):
            self._forget(name)

    def _reply(self, name: bytes, reply: Reply) -> None:
        """To an engine that has gone meanwhile it is dropped."""
        self._socket.send_multipart([name, encode(reply)])

    def _report(self, what: str, error: Exception) -> None:
        self._counts["host_failures"] += 1
        if self._counts["host_failures"] == 1:
            logger.warning("onceedit: %s failed (said once, counted always)", what, exc_info=error)


def _active_of(host: LocalHost) -> ActivePack:
    return ActivePack(host.active.number, host.active.pack.edits)


def _step(engine: _Engine, client: LocalClient, events: Sequence[Event]) -> list[Packet]:
    """Tell the plug-in, and what it says of the requests that were opened or appended to."""
    wanted = list(_told(engine, events).items())
    client.send(events)
    packets = _ask(client, wanted, [handle in engine.whole for handle, _ in wanted])
    engine.whole -= {p.handle for p in packets if p.state not in (State.SPEAKING, State.SILENT)}
    return packets


def _told(engine: _Engine, events: Sequence[Event]) -> dict[int, int]:
    """The requests that were opened or appended to, each with the number of its output tokens."""
    told: dict[int, int] = {}
    for event in events:
        if isinstance(event, Append):
            told[event.handle] = event.start + len(event.ids)
            continue
        told.pop(event.handle, None)
        engine.whole.discard(event.handle)
        if isinstance(event, Open):
            told[event.handle] = len(event.output_ids)
            engine.whole |= {event.handle} if event.whole else set()
    return told


def _ask(client: LocalClient, wanted: Sequence[tuple[int, int]], whole: Sequence[bool]) -> list[Packet]:
    """What the plug-in says; where that fails altogether, these requests are lost."""
    try:
        return packets_of(wanted, client.take(wanted), whole)
    except Exception as error:
        logger.warning("onceedit: a step with the plug-in failed", exc_info=error)
        client.send([Close(handle) for handle, _ in wanted])
        return [Packet(handle, length, State.LOST) for handle, length in wanted]
