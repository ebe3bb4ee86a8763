from __future__ import annotations

import math

import pytest

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.options import RequestOptions, parse_request_options, refuse_override


@pytest.mark.parametrize(
    ("extra_args", "expected"),
    [
        (None, RequestOptions()),
        ({}, RequestOptions()),
        ({"someone_elses": 3}, RequestOptions()),
        ({"onceedit": True}, RequestOptions()),
        ({"onceedit": 0}, RequestOptions(enabled=False)),
        ({"onceedit": "off"}, RequestOptions(enabled=False)),
        ({"onceedit": "OFF"}, RequestOptions(enabled=False)),
        ({"onceedit": 1.0}, RequestOptions()),
        ({"onceedit": None}, RequestOptions()),
        ({"onceedit_enabled": 0}, RequestOptions(enabled=False)),
        ({"onceedit": {"enabled": False}}, RequestOptions(enabled=False)),
        ({"onceedit": {"alpha": 1}}, RequestOptions(alpha=1.0)),
        ({"onceedit": 1, "onceedit_alpha": 0.25}, RequestOptions(alpha=0.25)),
        ({"onceedit_alpha": 0.0}, RequestOptions(alpha=0.0)),
        ({"onceedit": {"text": "Who?"}}, RequestOptions(text="Who?")),
        ({"onceedit_text": "Who?"}, RequestOptions(text="Who?")),
    ],
)
def test_accepted(extra_args, expected):
    assert parse_request_options(extra_args) == expected


@pytest.mark.parametrize(
    ("extra_args", "names"),
    [
        ({"onceedit": "maybe"}, "maybe"),
        ({"onceedit": 2}, "2"),
        ({"onceedit": None, "onceedit_alpha": "high"}, "high"),
        ({"onceedit": {"alpha": 1.5}}, "1.5"),
        ({"onceedit": {"alpha": -0.1}}, "-0.1"),
        ({"onceedit": {"alpha": math.nan}}, "nan"),
        ({"onceedit": {"alpha": True}}, "True"),
        ({"onceedit": {"alhpa": 1.0}}, "alhpa"),
        ({"onceedit_weight": 1.0}, "weight"),
        ({"onceedits": 1}, "onceedits"),
        ({"onceedit": [1]}, r"\[1\]"),
        ({"onceedit": {"alpha": 10**400}}, "alpha"),
        ({"onceedit": {"alpha": 0.5}, "onceedit_alpha": 0.6}, "onceedit_alpha"),
        ({"onceedit": 1, "onceedit_enabled": 0}, "onceedit_enabled"),
        ({"onceedit_text": " "}, "text = ' '"),
        ({"onceedit_text": 3}, "text = 3"),
        ({"onceedit_text": "x" * 1001}, r"text = 'xxx.*\.\.\..*1000 characters"),
    ],
)
def test_refused_naming_the_input_and_the_remedy(extra_args, names):
    with pytest.raises(BadInputError, match=names) as refusal:
        parse_request_options(extra_args)
    assert "Use {" in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "allowed_by"),
    [
        (RequestOptions(), {"none", "switch", "all"}),
        (RequestOptions(enabled=False), {"switch", "all"}),
        (RequestOptions(alpha=1.0), {"all"}),
        (RequestOptions(alpha=0.0), {"all"}),
        (RequestOptions(text="Who?"), {"all"}),
    ],
)
@pytest.mark.parametrize("setting", ["none", "switch", "all"])
def test_what_a_request_may_decide_is_the_engines_setting(options, allowed_by, setting):
    if setting in allowed_by:
        refuse_override(options, setting)
        return
    with pytest.raises(BadInputError, match="request_override") as refusal:
        refuse_override(options, setting)
    assert all(f'"{name}"' in str(refusal.value) for name in allowed_by)
