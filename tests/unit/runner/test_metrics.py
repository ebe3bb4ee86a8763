"""Names and labels are what the README promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from onceedit_vllm.fusion.counts import FuseCounts
from onceedit_vllm.runner.metrics import MEASURES, EngineMetrics, Metrics
from tests.unit.plugin.fakes import FakeRuntime
from tests.unit.runner.fakes import some_step

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def shown(registry: CollectorRegistry) -> dict[str, float]:
    """Samples by name and labels, as prometheus reads them."""
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    pairs = [line.rpartition(" ") for line in lines if "_created" not in line]
    return {name: float(value) for name, _, value in pairs}


def test_counts_only_grow_by_what_is_new(registry: CollectorRegistry) -> None:
    engine = EngineMetrics(Metrics(registry), ("toy", "0"))
    for tally in (
        {"gated": 2, "searched": 5, "failures": 0, "by_rows": 1},
        {"gated": 2, "searched": 9, "failures": 1, "by_rows": 1},
    ):
        engine.show_tally(tally)
    labels = 'engine="0",model_name="toy"'
    assert shown(registry) == {
        f'onceedit:requests_total{{decision="gated",{labels}}}': 2,
        f'onceedit:rows_total{{{labels},outcome="searched"}}': 9,
        f'onceedit:fallbacks_total{{{labels},reason="failures"}}': 1,
        f'onceedit:events_total{{{labels},event="by_rows"}}'.replace(
            f'{labels},event="by_rows"', 'engine="0",event="by_rows",model_name="toy"'
        ): 1,
    }


def test_a_count_that_began_anew_is_added(registry: CollectorRegistry) -> None:
    engine = EngineMetrics(Metrics(registry), ("toy", "0"))
    for count in (5, 2, 3):
        engine.show_tally({"bypassed": count})
    assert list(shown(registry).values()) == [8]


def test_states_are_shown_as_they_are(registry: CollectorRegistry) -> None:
    engine = EngineMetrics(Metrics(registry), ("toy", "0"))
    engine.show_tally({"texts": 3, "breaker_open": 1})
    engine.show_tally({"texts": 0, "breaker_open": 0})
    labels = '{engine="0",model_name="toy"}'
    assert shown(registry) == {f"onceedit:texts{labels}": 0, f"onceedit:breaker_open{labels}": 0}


def test_engines_are_told_apart(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    for number in (0, 1):
        EngineMetrics(metrics, ("toy", str(number))).show_tally({"gated": number + 1})
    assert sorted(shown(registry).values()) == [1, 2]


def test_every_count_of_a_step_has_a_metric_that_says_what_it_is(registry: CollectorRegistry) -> None:
    """Requests, rows and fallbacks are told apart; what only says how a peak was found is an event."""
    step = some_step(FakeRuntime())
    step.counts.update(dict.fromkeys(("out_of_scope", "gated", "bypassed", "failures"), 1))
    EngineMetrics(Metrics(registry), ("toy", "0")).show_tally(
        {**step.tally(), **dict.fromkeys(FuseCounts._fields, 1)}
    )
    events = {re.findall('event="(.*?)"', name)[0] for name in shown(registry) if "events" in name}
    assert events == {
        *("by_lists", "by_all_lists", "by_rows", "by_finalists"),
        *("cut_certified", "cut_uncertified"),
    }


def test_the_readme_lists_every_metric(registry: CollectorRegistry) -> None:
    engine = EngineMetrics(Metrics(registry), ("toy", "0"))
    engine.show_tally(dict.fromkeys(("gated", "searched", "failures", "by_rows", "texts", "kv_bytes"), 1))
    engine.show_tally(dict.fromkeys(("epoch", "packs", "breaker_open", "kv_free_tokens"), 1))
    for name in MEASURES:
        engine.show_values(name, [0.5])
    names = {re.sub(r"_(bucket|count|sum)$", "", name.partition("{")[0]) for name in shown(registry)}
    assert names == set(re.findall(r"^\| `(onceedit:\w+)`", README, flags=re.MULTILINE))
