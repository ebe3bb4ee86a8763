"""Whether there is memory for one more plug-in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.machine import cgroup_free_bytes

if TYPE_CHECKING:
    from onceedit_vllm.config import PlugInConfig


def refuse_without_room(model_dir: Path, config: PlugInConfig, device: torch.device) -> None:
    """Refuse to load a plug-in that would not fit: on a CPU the system kills whoever asked last.

    Args:
        model_dir: Its folder; its weights take at most twice their size in memory while they are loaded.
        config: The bytes of its keys and values.
        device: Where it goes.

    Raises:
        BadInputError: There is less free memory than it takes.
    """
    weights = sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))
    needed, free = 2 * weights + config.kv_cache_bytes, _free_bytes(device)
    if free < needed:
        raise BadInputError(
            f"there is no room for a second plug-in beside the active one: it takes {needed / 1e9:.2f} GB "
            f"on {device}, and {free / 1e9:.2f} GB are free; give the plug-in a smaller "
            "plugin.kv_cache_bytes, or the LLM less memory"
        )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = int(psutil.virtual_memory().available)
    ours = cgroup_free_bytes()
    return available if ours is None else min(available, ours)
