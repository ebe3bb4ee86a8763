"""Where numbers were made: machine, versions, commit and command."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from onceedit_vllm.evaluation.provenance import command_of, machine, versions


def provenance() -> dict[str, Any]:
    """What every result file carries beside its numbers."""
    return {
        "command": f"benchmarks/{command_of(sys.argv)}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "torch_threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _commit() -> str | None:
    """The commit, with a plus where the tree has changes; None outside a checkout."""
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")
