"""An engine's end of a plug-in host in another process.

Nothing here raises while the engine serves, and nothing waits longer than its deadline. What does not come
in time is lost, for the requests concerned only; a host that fails several times in a row is left alone for a
while; one that has restarted is told the vocabulary again, and the requests as the engine opens them again.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, NamedTuple

import torch
import zmq

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import HostError, WireError
from onceedit_vllm.plugin.breaker import CircuitBreaker
from onceedit_vllm.plugin.heartbeat import INTERVAL, Heartbeat
from onceedit_vllm.plugin.host import ActivePack
from onceedit_vllm.plugin.packets import Answer, Answers, Append, Close, Event, Open, State
from onceedit_vllm.plugin.wire import (
    VERSION,
    Activated,
    Attach,
    Attached,
    Counted,
    Detach,
    Listed,
    More,
    Packet,
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
    ids_tensor,
    lists_of,
    silence,
)

if TYPE_CHECKING:
    from onceedit_vllm.fusion.lists import Lists
    from onceedit_vllm.plugin.host import Vocabulary

logger = logging.getLogger("onceedit_vllm.plugin")

#: Milliseconds in which the last message may still leave when the engine ends.
_LINGER = 500


class Endpoint(NamedTuple):
    """Where a host listens.

    Attributes:
        address: ``ipc://PATH`` or ``tcp://HOST:PORT``.
        token: What it asks for; empty where it asks for nothing.
        pack: The digest of the manifest of the engine's own pack, which it must know; empty: any.
    """

    address: str
    token: str = ""
    pack: str = ""


class _Told(NamedTuple):
    """A request as the host knows it: its output tokens, and whether it was ever answered."""

    length: int
    is_answered: bool


class RemoteClient:
    """A :class:`~onceedit_vllm.plugin.host.PlugInClient` over a socket, for one thread at a time.

    Args:
        endpoint: Where the host is.
        vocabulary: The engine's LLM's.
        threshold: In place of those of all packs.
        config: Its deadlines.
        interval: Seconds between two beats of the heart.

    Raises:
        HostError: The host does not answer, or refuses.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        vocabulary: Vocabulary,
        threshold: float | None = None,
        config: PlugInConfig | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._active = ActivePack(0, ())
        self._endpoint, self._threshold = endpoint, threshold
        self._vocabulary = VocabularyBytes.of(vocabulary)
        self._config = PlugInConfig() if config is None else config
        self._breaker = CircuitBreaker(self._config.retry_seconds, self._config.longest_retry_seconds)
        self._session, self._is_attached, self._refusal = 0, False, ""
        self._targets = torch.empty(0, dtype=torch.int64)
        self._told: dict[int, _Told] = {}
        self._said: dict[int, Packet] = {}
        self._counts: Counter[str] = Counter()
        self._counted: tuple[int, dict[str, int]] = (0, {})
        # A host that is not there is not written to, and nothing is kept for it.
        self._is_unreachable = False
        engine = uuid.uuid4().hex
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, _LINGER), (zmq.IMMEDIATE, 1)):
            self._socket.setsockopt(option, value)
        self._socket.setsockopt(zmq.ROUTING_ID, engine.encode())
        self._socket.connect(endpoint.address)
        self._heartbeat = Heartbeat(self._context, endpoint.address, engine, interval)
        # After the engine's last words. Not `atexit`: processes of `multiprocessing` end without it.
        self._at_exit = Finalize(None, self.shutdown, exitpriority=-10)
        self._attach_at_first()

    def _attach_at_first(self) -> None:
        """Wait until the host lets this engine in."""
        until = time.monotonic() + self._config.attach_deadline
        self._socket.poll(math.ceil(1000 * self._config.attach_deadline), zmq.POLLOUT)
        self._attach()
        self._receive_until(lambda: len(self._targets) > 0 or bool(self._refusal), until)
        if len(self._targets) == 0:
            why = self._refusal or f"it has not answered in {self._config.attach_deadline:g} s"
            self.shutdown()
            raise HostError(
                f"the plug-in host at {self._endpoint.address} cannot be attached to: {why}; see `onceedit "
                "host list` (from another machine it is reached only if it was started with --tcp)"
            )

    @property
    def active(self) -> ActivePack:
        """See the protocol: as last heard, and what has arrived is heard first."""
        if not self._socket.closed:
            self._receive_until(lambda: False, time.monotonic())
        return self._active

    def send(self, events: Sequence[Event]) -> None:
        """See the protocol."""
        if self._breaker.is_open:
            return
        if not self._is_attached:
            self._attach()
        for event in events:
            self._note(event)
        if not self._post(Step(self._session, events)):
            for event in events:  # of which the host will never hear
                self._lose(event.handle)

    def _note(self, event: Event) -> None:
        told, said = self._told.pop(event.handle, None), self._said.pop(event.handle, None)
        if isinstance(event, Open):
            self._told[event.handle] = _Told(len(event.output_ids), False)
        elif isinstance(event, Append):
            length = event.start + len(event.ids)
            self._told[event.handle] = _Told(length, told is not None and told.is_answered)
            if said is not None and said.state == State.LOST:
                self._lose(event.handle)

    def take(self, wanted: Sequence[tuple[int, int]]) -> Answers:
        """See the protocol; lists may be cut. Raises nothing."""
        if self._breaker.is_open:
            return Answers([Answer(State.LOST)] * len(wanted))
        is_failed = not self._wait_for(wanted)
        packets = [self._packet_of(handle, length) for handle, length in wanted]
        for packet in packets:
            if packet.state not in (State.SPEAKING, State.SILENT):
                self._told.pop(packet.handle, None)
                self._said.pop(packet.handle, None)
        if is_failed:
            self._fail()
        listed = [packet.listed for packet in packets if packet.listed is not None]
        return Answers([packet.answer for packet in packets], lists_of(listed, self._targets))

    def more(self, handles: Sequence[int]) -> Lists:
        """See the protocol. Of a request whose list does not come the row says nothing: it is lost."""
        self._counts["more_requests"] += len(handles)
        told = {handle: self._told[handle].length for handle in handles if handle in self._told}
        rows = self._whole_lists(told) if told and not self._breaker.is_open else {}
        nothing = silence(len(self._targets))
        lists = lists_of([rows.get(handle, nothing) for handle in handles], self._targets)
        assert lists is not None
        return lists

    def _whole_lists(self, told: Mapping[int, int]) -> dict[int, Listed]:
        """Of requests with so many output tokens, by handle; those that do not come are lost."""
        self._post(More(self._session, list(told.items())))
        until = time.monotonic() + self._config.hard_deadline
        self._receive_until(lambda: len(self._whole(told)) == len(told) or not self._is_attached, until)
        rows = self._whole(told)
        missing = [handle for handle in told if handle not in rows]
        if missing:
            self._give_up(missing)
            self._fail()
        return rows

    def _whole(self, handles: Iterable[int]) -> dict[int, Listed]:
        said = {handle: self._said[handle].listed for handle in handles if handle in self._said}
        return {handle: row for handle, row in said.items() if row is not None and row.ids is None}

    def tally(self) -> dict[str, int]:
        """See the protocol: the host's counts for this engine as last heard, and this end's own."""
        number = self._counted[0] + 1
        if self._is_attached and not self._breaker.is_open and self._post(Tally(self._session, number)):
            until = time.monotonic() + self._config.hard_deadline
            self._receive_until(lambda: self._counted[0] == number or not self._is_attached, until)
        breaker = {"breaker_open": int(self._breaker.is_open), "breaker_openings": self._breaker.num_opened}
        return {**self._counted[1], **self._counts, **breaker}

    def shutdown(self) -> None:
        """See the protocol."""
        self._at_exit.cancel()
        if self._socket.closed:
            return
        self._heartbeat.stop()
        self._post(Detach(self._session))
        self._socket.close()
        self._context.term()

    def _wait_for(self, wanted: Sequence[tuple[int, int]]) -> bool:
        """Until all is there that the host was told of; what is not there in the end is lost.

        Returns:
            False where the host has failed.
        """
        missing = self._missing(wanted)
        was_unreachable, self._is_unreachable = self._is_unreachable, False
        if not missing:
            return not was_unreachable
        began = time.monotonic()
        is_first = any(not self._told[handle].is_answered for handle in missing)
        patience = self._config.first_deadline if is_first else self._config.hard_deadline
        self._receive_until(lambda: not self._missing(wanted), began + patience)
        self._counts["soft_deadlines"] += time.monotonic() - began > self._config.soft_deadline
        missing = self._missing(wanted)
        if missing:
            self._give_up(missing)
            return False
        if self._is_attached:
            self._breaker.succeeded()
        return True

    def _missing(self, wanted: Sequence[tuple[int, int]]) -> list[int]:
        """Of which the host was told, and has said nothing yet."""
        return [
            handle
            for handle, length in wanted
            if handle in self._told and self._told[handle].length == length and handle not in self._said
        ]

    def _give_up(self, handles: Sequence[int]) -> None:
        """These have waited long enough."""
        self._counts["hard_deadlines"] += 1
        self._post(Step(self._session, [Close(handle) for handle in handles]))
        for handle in handles:
            self._lose(handle)

    def _lose(self, handle: int) -> None:
        told = self._told.get(handle)
        if told is not None:
            self._said[handle] = Packet(handle, told.length, State.LOST)

    def _fail(self) -> None:
        self._breaker.failed()
        if self._breaker.is_open:
            logger.warning("onceedit: the plug-in host does not answer; it is left alone for a while")
            # It may miss the end of many a request meanwhile: afterwards all begins anew.
            self._let_go()

    def _packet_of(self, handle: int, length: int) -> Packet:
        told = self._told.get(handle)
        if told is None or told.length != length or handle not in self._said:
            return Packet(handle, length, State.LOST if self._breaker.is_open else State.UNKNOWN)
        return self._said[handle]

    def _attach(self) -> None:
        """Tell the host, once more or for the first time, whose tokens it will hear of. Does not wait."""
        self._let_go()
        if not self._socket.poll(0, zmq.POLLOUT):
            return
        self._counts["reconnects"] += self._session > 0
        self._session += 1
        _, token, pack = self._endpoint
        attach = Attach(VERSION, self._session, token, pack, self._threshold, self._vocabulary)
        self._is_attached = self._post(attach)

    def _let_go(self) -> None:
        """Nothing that was said before counts any more."""
        self._is_attached = False
        self._told.clear()
        self._said.clear()

    def _post(self, request: Request) -> bool:
        """False where the host is away. Never waits."""
        data = encode(request)
        try:
            self._socket.send(data, zmq.NOBLOCK)
        except zmq.ZMQError:
            # It may have missed the end of a request: once it is there again, all begins anew.
            self._is_unreachable, self._is_attached = True, False
            return False
        self._counts["bytes_out"] += len(data)
        return True

    def _receive_until(self, is_done: Callable[[], bool], until: float) -> None:
        """Take in what comes, until there is enough or the time is over."""
        while not is_done():
            patience = until - time.monotonic()
            if not self._socket.poll(max(0, math.ceil(1000 * patience))):
                return
            data = self._socket.recv()
            self._counts["bytes_in"] += len(data)
            try:
                self._hear(decode_reply(data))
            except WireError as error:
                self._misunderstood(error)

    def _hear(self, reply: Reply) -> None:
        if reply.session != self._session:
            if isinstance(reply, Refused) and reply.session == 0:
                self._misunderstood(WireError(reply.reason))
        elif isinstance(reply, Said):
            for packet in reply.packets:
                self._keep(packet)
        elif isinstance(reply, Attached):
            self._targets, self._refusal = ids_tensor(reply.targets), ""
            self._active = reply.active.read()
        elif isinstance(reply, Activated):
            self._active = reply.active.read()
        elif isinstance(reply, Counted):
            self._counted = (reply.number, reply.counts)
        elif isinstance(reply, Unattached):
            self._let_go()
        else:
            self._refusal = reply.reason
            logger.warning("onceedit: the plug-in host refuses: %s", reply.reason)
            self._let_go()
            self._fail()

    def _keep(self, packet: Packet) -> None:
        """What comes late, or of a request that was lost, is left where it is."""
        told = self._told.get(packet.handle)
        before = self._said.get(packet.handle)
        is_lost = before is not None and before.state == State.LOST
        if told is None or told.length != packet.length or is_lost:
            return
        packet.check(len(self._targets), self._vocabulary.width)
        self._said[packet.handle] = packet
        self._told[packet.handle] = _Told(told.length, True)

    def _misunderstood(self, error: WireError) -> None:
        self._counts["unparsable"] += 1
        if self._counts["unparsable"] == 1:
            logger.warning("onceedit: a message of the plug-in host is left out: %s", error)
