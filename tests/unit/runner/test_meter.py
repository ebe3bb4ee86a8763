"""What is measured on the engine's thread arrives in prometheus, once, and costs the engine nothing."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from onceedit_vllm.runner import meter as meter_module
from onceedit_vllm.runner.meter import Meter
from onceedit_vllm.runner.metrics import EngineMetrics, Metrics

LABELS = {"model_name": "toy", "engine": "0"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    monkeypatch.setattr(Meter, "_start", lambda meter: setattr(meter, "_thread", threading.current_thread()))
    return clock


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def meter(clock: Clock, registry: CollectorRegistry) -> Meter:
    return Meter(EngineMetrics(Metrics(registry), ("toy", "0")), seconds=5.0)


def test_values_arrive_once(meter: Meter, registry: CollectorRegistry) -> None:
    for alpha in (0.02, 0.4, 0.95):
        meter.observe("alpha", alpha)
    meter.show()
    meter.show()
    assert registry.get_sample_value("onceedit:alpha_count", LABELS) == 3
    assert registry.get_sample_value("onceedit:alpha_sum", LABELS) == pytest.approx(1.37)
    assert registry.get_sample_value("onceedit:alpha_bucket", {**LABELS, "le": "0.5"}) == 2
    # What was never measured is not shown as 0.
    assert registry.get_sample_value("onceedit:wait_seconds_count", LABELS) is None


def test_what_waits_is_bounded(meter: Meter, registry: CollectorRegistry) -> None:
    for _ in range(meter_module._MOST_WAITING + 10):
        meter.observe("fuse_seconds", 0.001)
    meter.show()
    count = registry.get_sample_value("onceedit:fuse_seconds_count", LABELS)
    assert count == meter_module._MOST_WAITING


class Tally:
    """Counts its readings, and by whom."""

    def __init__(self, clock: Clock) -> None:
        self.counts = {"gated": 1}
        self.reads: list[float] = []
        self._clock = clock

    def __call__(self) -> dict[str, int]:
        self.reads.append(self._clock.now)
        return dict(self.counts)


def test_a_busy_engine_reads_its_tally_now_and_then_and_the_thread_never(
    meter: Meter, clock: Clock, registry: CollectorRegistry
) -> None:
    tally = Tally(clock)
    meter.follow(tally)
    for now in (100.0, 100.4, 104.9, 105.0, 105.5):
        clock.now = now
        meter.tick()
        meter.show()
    assert tally.reads == [100.0, 105.0]
    assert registry.get_sample_value("onceedit:requests_total", {**LABELS, "decision": "gated"}) == 1


def test_an_idle_engine_is_read_once_by_the_thread(
    meter: Meter, clock: Clock, registry: CollectorRegistry
) -> None:
    tally = Tally(clock)
    meter.follow(tally)
    meter.tick()
    clock.now, tally.counts = 100.5, {"gated": 3}
    meter.tick()
    for now in (100.6, 101.5, 102.0, 110.0):
        clock.now = now
        meter.show()
    assert tally.reads == [100.0, 101.5]
    assert registry.get_sample_value("onceedit:requests_total", {**LABELS, "decision": "gated"}) == 3


def test_nothing_of_the_warm_up_is_shown(
    meter: Meter, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "is_warming_up", lambda: True)
    meter.observe("step_seconds", 0.1)
    meter.tick()
    assert meter._thread is None
    monkeypatch.setattr(meter_module, "is_warming_up", lambda: False)
    meter.observe("step_seconds", 0.2)
    meter.tick()
    meter.show()
    assert registry.get_sample_value("onceedit:step_seconds_sum", LABELS) == 0.2


def test_a_broken_tally_or_registry_harms_nobody(
    meter: Meter, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> dict[str, int]:
        raise RuntimeError("the GPU is gone")

    meter.follow(broken)
    meter.tick()
    meter.observe("alpha", 0.5)
    monkeypatch.setattr(EngineMetrics, "show_values", broken)
    meter.show()
    monkeypatch.undo()
    meter.observe("alpha", 0.25)
    meter.show()
    assert registry.get_sample_value("onceedit:alpha_sum", LABELS) == 0.25


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(meter_module, "_PACE", 0.01)
    yield
    for thread in threading.enumerate():
        if thread.name == "onceedit-meter":
            thread.join(10)


@pytest.mark.usefixtures("fast")
def test_the_thread_shows_without_being_asked_and_ends_with_its_engine(registry: CollectorRegistry) -> None:
    meter = Meter(EngineMetrics(Metrics(registry), ("toy", "0")))
    counts = {"gated": 0}
    meter.follow(lambda: counts)
    meter.tick()
    counts["gated"] = 2
    thread, gone = meter._thread, weakref.ref(meter)
    assert thread is not None
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if registry.get_sample_value("onceedit:requests_total", {**LABELS, "decision": "gated"}) == 2:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the thread showed nothing")
    del meter
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    assert gone() is None
