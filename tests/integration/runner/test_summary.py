"""The counts in vLLM's log."""

from __future__ import annotations

import logging
import multiprocessing
import time

import pytest

pytestmark = pytest.mark.integration

pytest.importorskip("vllm", reason="vLLM is not installed")

from onceedit_vllm.runner.summary import Summary, end_summaries  # noqa: E402

LOGGER = "vllm.onceedit"


@pytest.fixture
def lines(caplog, monkeypatch):
    """What was logged; vLLM keeps its loggers to itself."""
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    caplog.set_level(logging.INFO, LOGGER)
    return lambda: [record.getMessage() for record in caplog.records if record.name == LOGGER]


def test_a_line_now_and_then_and_only_when_something_changed(lines, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    counts = {"gated": 1, "bypassed": 2, "failures": 0, "kv_bytes": 5, "epoch": 1}
    reads = []

    def read() -> dict[str, int]:
        reads.append(clock[0])
        return dict(counts)

    summary = Summary(read, 10.0)
    for now in (101.0, 109.9, 110.0, 111.0, 120.1, 125.0):
        clock[0] = now
        summary.tick()
    assert lines() == ["onceedit, since the start: gated 1, bypassed 2"]
    # Reading waits for the GPU: once an interval, not once a step.
    assert reads == [110.0, 120.1]
    counts["failures"] = 1
    clock[0] = 131.0
    summary.tick()
    summary.write()
    assert lines()[1:] == ["onceedit, since the start: gated 1, bypassed 2, failures 1"]


def test_counts_that_cannot_be_read_harm_nothing(lines):
    def broken():
        raise RuntimeError("the GPU is gone")

    Summary(broken, 0.0).tick()
    assert lines() == []


def test_an_engine_of_this_process_writes_its_last_line_when_it_is_closed(lines):
    counts = {"gated": 2}
    summary = Summary(lambda: counts, 10.0)
    end_summaries()
    assert lines() == ["onceedit, since the start: gated 2"]
    counts["gated"] = 3
    end_summaries()
    assert len(lines()) == 1
    assert not summary._at_exit.still_active()


def serve(connection) -> None:
    class ToParent(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            connection.send(record.getMessage())

    logging.getLogger(LOGGER).setLevel(logging.INFO)
    logging.getLogger(LOGGER).addHandler(ToParent())
    Summary(lambda: {"gated": 3}, 10.0).tick()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_last_line_is_written_when_the_engines_process_ends():
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    engine = context.Process(target=serve, args=(there,))
    engine.start()
    assert here.poll(20)
    assert here.recv() == "onceedit, since the start: gated 3"
    engine.join(60)
