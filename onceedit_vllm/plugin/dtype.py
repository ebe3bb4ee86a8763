"""The arithmetic of the plug-in."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from onceedit_vllm.machine import has_fast_bfloat16

logger = logging.getLogger("onceedit_vllm.plugin")


def plugin_dtype(name: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The dtype that `plugin.dtype` stands for on a device; what "auto" chose is logged.

    bfloat16 on a GPU and on a CPU with instructions for it. Where a machine has both a GPU and a plug-in
    on its CPU, float32: what is known of the GPU says nothing about the CPU.
    """
    if name != "auto":
        chosen: torch.dtype = getattr(torch, name)
        return chosen
    if device.type == "cpu":
        is_fast = not torch.cuda.is_available() and has_fast_bfloat16()
    else:
        is_fast = has_fast_bfloat16()
    chosen = torch.bfloat16 if is_fast else torch.float32
    logger.info(
        "plugin.dtype='auto': the plug-in computes in %s on %s; set plugin.dtype to override",
        str(chosen).removeprefix("torch."),
        device,
    )
    return chosen
