"""Everything that must be refused before an engine starts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.assembly import gate_of, refuse_second, refuse_unsupported, serving_config

pytestmark = pytest.mark.integration


class EngineSettings(SimpleNamespace):
    """Shaped like vLLM's config; a class of its own so that it can be weakly referenced."""


def settings(*, speculative=None, tp=1, pp=1):
    parallel = SimpleNamespace(tensor_parallel_size=tp, pipeline_parallel_size=pp)
    return EngineSettings(speculative_config=speculative, parallel_config=parallel)


@pytest.mark.parametrize("additional", [None, {}, {"other": {}}, "text", {"onceedit": None}])
def test_a_missing_configuration_says_how_to_pass_one(additional):
    with pytest.raises(BadInputError, match="additional_config="):
        serving_config(additional)


@pytest.mark.parametrize(
    ("ours", "names"),
    [
        ({}, "pack"),
        ({"pack": "p", "treshold": 0.5}, "treshold"),
        ({"pack": "p", "threshold": 2}, "threshold"),
        ({"pack": "p", "alignment": {"kind": "magic"}}, "alignment.kind"),
        ({"pack": "p", "plugin": {"host": "ray"}}, "plugin.host"),
        ({"pack": "p", "scope": "weight+subject"}, "scope"),
        ({"pack": "p", "weight": 0.5}, "weight"),
        ("a/pack", "onceedit"),
    ],
)
def test_a_bad_setting_is_named(ours, names):
    with pytest.raises(BadInputError, match=names):
        serving_config({"onceedit": ours})


@pytest.mark.parametrize(
    ("override", "thresholds"), [(None, (0.1, 0.6)), (0.3, (0.3, 0.3)), (0.0, (0.0, 0.0))]
)
def test_the_gate_takes_the_packs_thresholds_unless_one_is_set(override, thresholds):
    manifest = SimpleNamespace(threshold=0.1, weight_threshold=0.6)
    gate = gate_of(manifest, serving_config({"onceedit": {"pack": "p", "threshold": override}}))
    assert (gate.threshold, gate.weight_threshold) == thresholds


def test_good_settings_are_read():
    config = serving_config({"onceedit": {"pack": "p", "fusion": {"solver": "adamw"}}})
    assert (str(config.pack), config.fusion.solver) == ("p", "adamw")


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        ({"speculative": object()}, "speculative"),
        ({"tp": 2}, "tensor_parallel_size=1"),
        ({"pp": 2}, "pipeline_parallel_size=1"),
    ],
)
def test_unsupported_engines_are_refused(bad, names):
    with pytest.raises(BadInputError, match=names):
        refuse_unsupported(settings(**bad))


def test_listing_the_processor_twice_is_refused():
    engine = settings()
    refuse_second(engine)
    with pytest.raises(BadInputError, match="listed twice"):
        refuse_second(engine)
    refuse_second(settings())
