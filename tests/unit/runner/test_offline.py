"""The settings of an offline engine."""

from __future__ import annotations

import pytest

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.runner.offline import processor_args
from onceedit_vllm.runner.options import parse_request_options, refuse_override


@pytest.mark.parametrize("override", ["none", "switch", "all"])
def test_plain_answers_can_be_had_whatever_the_setting_for_requests(tmp_path, override):
    given = ServingConfig(pack=tmp_path, request_override=override)
    args = processor_args(given, tmp_path / "decisions.jsonl")
    config = ServingConfig.model_validate(args["additional_config"]["onceedit"])
    refuse_override(parse_request_options({"onceedit": False}), config.request_override)
    assert config.decisions_log == tmp_path / "decisions.jsonl"
