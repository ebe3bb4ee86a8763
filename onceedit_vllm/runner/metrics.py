"""What prometheus shows of the processor; names, labels and units are those of the README.

Below our own prefix, because vLLM drops every collector whose name begins with its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

#: What is measured one value at a time.
Measure = Literal["alpha", "step_seconds", "plugin_step_seconds", "wait_seconds", "fuse_seconds"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

_LABELS = ("model_name", "engine")
_ALPHA = (0.01, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.99, 1.0)
_SECONDS = tuple(step * 10.0**power for power in range(-4, 1) for step in (1.0, 2.5, 5.0))
_MEANINGS: dict[Measure, str] = {
    "alpha": "What the plug-in says for the edits, one value a decision.",
    "step_seconds": "What the processor adds to a step of the engine.",
    "plugin_step_seconds": "A step of the plug-in.",
    "wait_seconds": "What a step of the engine waits for the plug-in.",
    "fuse_seconds": "Fusion and search of a step.",
}
#: Names in a tally -> metric, label. Every other name is an event.
_COUNTED = {
    **dict.fromkeys(("out_of_scope", "gated", "bypassed"), ("requests", "decision")),
    **dict.fromkeys(("searched", "sampled", "left"), ("rows", "outcome")),
    **dict.fromkeys(
        ("failures", "unknown_tokens", "ignored_options", "dense_steps", "kv_full", "retries", "reopened"),
        ("fallbacks", "reason"),
    ),
}
_COUNTERS = {
    "requests": ("decision", "Decisions on requests; a preempted request is decided anew."),
    "rows": ("outcome", "Rows behind an open gate, by what they got."),
    "fallbacks": ("reason", "What went the slow way, or was left to the LLM, and why."),
    "events": ("event", "Everything else that is counted."),
}
#: Names in a tally that are states, not counts, with what they say.
STATES = {
    "texts": "Texts that the plug-in follows now.",
    "kv_bytes": "Bytes of the plug-in's keys and values.",
    "kv_free_tokens": "Tokens of the plug-in for which its keys and values have room.",
    "packs": "Packs in memory: the active one, and earlier ones that running requests began with.",
    "epoch": "The number of the pack that new requests get.",
    "breaker_open": "1 while the plug-in is not asked because it failed repeatedly.",
}


class Metrics:
    """The collectors of one process; several engines share them, told apart by their labels.

    Args:
        registry: Where they are shown. A registry takes them once.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._counters = {
            name: Counter(f"onceedit:{name}", text, (*_LABELS, label), registry=registry)
            for name, (label, text) in _COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(f"onceedit:{name}", text, _LABELS, registry=registry, multiprocess_mode="mostrecent")
            for name, text in STATES.items()
        }
        self._histograms = {
            name: Histogram(
                f"onceedit:{name}",
                text,
                _LABELS,
                registry=registry,
                buckets=_ALPHA if name == "alpha" else _SECONDS,
            )
            for name, text in _MEANINGS.items()
        }

    def count(self, engine: EngineLabels, name: str, more: int) -> None:
        """Add to a counter what was counted since the last time."""
        metric, _ = _COUNTED.get(name, ("events", "event"))
        self._counters[metric].labels(*engine, name).inc(more)

    def observe(self, engine: EngineLabels, name: Measure, values: Iterable[float]) -> None:
        """Add measured values to a histogram."""
        histogram = self._histograms[name].labels(*engine)
        for value in values:
            histogram.observe(value)

    def set_state(self, engine: EngineLabels, name: str, value: float) -> None:
        """Show a state."""
        self._gauges[name].labels(*engine).set(value)


#: Name of the served model, number of the engine.
EngineLabels = tuple[str, str]


class EngineMetrics:
    """Shows the numbers of one engine.

    Args:
        metrics: The process's.
        engine: The labels.
    """

    def __init__(self, metrics: Metrics, engine: EngineLabels) -> None:
        self._metrics = metrics
        self._engine = engine
        self._shown: dict[str, int] = {}

    def show_tally(self, tally: Mapping[str, int]) -> None:
        """Show counts since the engine's start, and states. A count that fell began anew."""
        for name, value in tally.items():
            if name in STATES:
                self._metrics.set_state(self._engine, name, value)
                continue
            before = self._shown.get(name, 0)
            more = value - before if value >= before else value
            self._shown[name] = value
            if more:
                self._metrics.count(self._engine, name, more)

    def show_values(self, name: Measure, values: Iterable[float]) -> None:
        """Show measured values."""
        self._metrics.observe(self._engine, name, values)
