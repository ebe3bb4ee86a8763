"""Which arithmetic the plug-in gets."""

from __future__ import annotations

import logging

import pytest
import torch

from onceedit_vllm.plugin import dtype as dtype_module
from onceedit_vllm.plugin.dtype import plugin_dtype


@pytest.mark.parametrize(
    ("device", "has_gpu", "is_fast", "chosen"),
    [
        ("cpu", False, False, torch.float32),
        ("cpu", False, True, torch.bfloat16),
        ("cpu", True, True, torch.float32),
        ("cuda", True, True, torch.bfloat16),
        ("cuda", True, False, torch.float32),
    ],
)
def test_auto_follows_the_machine_and_says_so(
    device: str,
    has_gpu: bool,
    is_fast: bool,
    chosen: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(dtype_module, "has_fast_bfloat16", lambda: is_fast)
    with caplog.at_level(logging.INFO, logger="onceedit_vllm.plugin"):
        assert plugin_dtype("auto", torch.device(device)) is chosen
    assert f"computes in {str(chosen).removeprefix('torch.')} on {device}" in caplog.text


def test_what_is_asked_for_is_given() -> None:
    assert plugin_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    assert plugin_dtype("float32", torch.device("cuda")) is torch.float32
