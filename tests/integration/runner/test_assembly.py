"""The settings of an engine, as vLLM hands them over."""

from __future__ import annotations

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.assembly import serving_config

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
        ("a/pack", "onceedit"),
    ],
)
def test_a_bad_setting_is_named(ours, names):
    with pytest.raises(BadInputError, match=names):
        serving_config({"onceedit": ours})


def test_good_settings_are_read():
    config = serving_config({"onceedit": {"pack": "p", "fusion": {"solver": "adamw"}}})
    assert (str(config.pack), config.fusion.solver) == ("p", "adamw")
