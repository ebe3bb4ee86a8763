"""What this machine is good at, and how much of it is ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

#: What a control group of no limit has as its limit is this or more.
_UNLIMITED = 2**60


def has_fast_bfloat16() -> bool:
    """Whether there are instructions for bfloat16: on a GPU, or a CPU with AMX, AVX-512 or Arm's.

    Without them a CPU takes several times longer than with float32.
    """
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


class _Without:
    """Keeps cuDNN from attention while anything is inside, whichever threads are: torch has one switch."""

    def __init__(self) -> None:
        self._lock, self._inside, self._was_on = threading.Lock(), 0, False

    def __enter__(self) -> None:
        import torch

        with self._lock:
            if not self._inside:
                self._was_on = torch.backends.cuda.cudnn_sdp_enabled()
                torch.backends.cuda.enable_cudnn_sdp(False)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        import torch

        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.backends.cuda.enable_cudnn_sdp(self._was_on)


_WITHOUT_CUDNN = _Without()


def attention_of_any_shape(device: str) -> AbstractContextManager[None]:
    """A context in which torch's attention is not cuDNN's, for texts of which hardly two are of one length.

    In bfloat16 on a GPU cuDNN comes first, and makes a plan for every new shape: there a step of the plug-in
    took 138 ms on an H200, and 39 in float32, of which cuDNN has no part. On a CPU the context does nothing.

    Args:
        device: The type of the model's device.
    """
    return _WITHOUT_CUDNN if device == "cuda" else nullcontext()


def cgroup_free_bytes(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """What the control groups of this process still let it take; a container's limit is one.

    The system ends a process that takes more, however much the machine has.

    Args:
        root: Where groups are shown, of either version.
        membership: Which ones this process is in.

    Returns:
        Bytes; None where no group has a limit.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    free = [
        left
        for line in lines
        for group in _memory_groups(root, line)
        if (left := _left_in(group)) is not None
    ]
    return min(free, default=None)


def _memory_groups(root: Path, line: str) -> Iterator[Path]:
    """The group that a line of a membership names, and those that it is in."""
    _, controllers, path = line.split(":", 2)
    if controllers and "memory" not in controllers.split(","):
        return
    base = root / "memory" if controllers else root
    group = base / path.lstrip("/")
    yield group
    for parent in group.parents:
        if parent.is_relative_to(base):
            yield parent


def _left_in(group: Path) -> int | None:
    """Bytes; None where it has no limit, or cannot be read."""
    for limit_name, usage_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, usage = ((group / name).read_text().strip() for name in (limit_name, usage_name))
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit == "max" or int(limit) >= _UNLIMITED:
            return None
        # What is only kept in case a file is read again is given back when it is needed.
        return max(0, int(limit) - int(usage) + int(stat.get(cache_name, 0)))
    return None
