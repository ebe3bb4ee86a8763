"""Tells a plug-in host every few seconds that this engine is alive, so that it is not forgotten."""

from __future__ import annotations

import threading
from contextlib import suppress

import zmq

from onceedit_vllm.plugin.wire import Beat, encode

#: Seconds between two beats: several within the host's lease.
INTERVAL = 5.0


class Heartbeat:
    """Beats from a thread and a connection of its own, also while the engine is idle.

    Args:
        context: Makes the socket.
        address: The host's.
        engine: The name to beat for.
        interval: See :data:`INTERVAL`.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, engine: str, interval: float = INTERVAL
    ) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        # Beats for a host that is away are not kept for it.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.connect(address)
        self._beat = encode(Beat(engine))
        self._interval = interval
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="onceedit-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Twice is harmless."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        with self._socket:
            while not self._ending.wait(self._interval):
                with suppress(zmq.Again):
                    self._socket.send(self._beat, zmq.NOBLOCK)
