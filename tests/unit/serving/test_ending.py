"""A server that is told to end before it has come up."""

from __future__ import annotations

import os
import signal

import pytest

from onceedit_vllm.serving.ending import ended_by_sigterm


def test_sigterm_is_an_interrupt_while_the_server_starts_and_not_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def start() -> None:
        with ended_by_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        start()
    assert signal.getsignal(signal.SIGTERM) == before
