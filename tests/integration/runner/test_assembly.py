"""The settings of an engine, as vLLM hands them over."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.assembly import gate_of, serving_config

pytestmark = pytest.mark.integration


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
