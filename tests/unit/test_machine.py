"""How much memory is left to this process, as the kernel shows it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from onceedit_vllm.machine import attention_of_any_shape, cgroup_free_bytes

GIB = 2**30


def group(folder: Path, limit: str, usage: int, cache: int, *, version: int = 2) -> None:
    """As the kernel writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "membership"


def test_a_container_of_its_own_sees_its_limit_at_the_root(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/\n")
    group(tmp_path, str(4 * GIB), 3 * GIB, GIB // 2)
    assert cgroup_free_bytes(tmp_path, membership) == GIB + GIB // 2


def test_the_narrowest_of_the_groups_around_counts(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/pod/container\n")
    group(tmp_path / "pod" / "container", "max", GIB, 0)
    assert cgroup_free_bytes(tmp_path, membership) is None
    group(tmp_path / "pod", str(2 * GIB), GIB, 0)
    assert cgroup_free_bytes(tmp_path, membership) == GIB
    group(tmp_path, str(8 * GIB), 8 * GIB - 5, 0)
    assert cgroup_free_bytes(tmp_path, membership) == 5


def test_the_first_version_is_read_too(tmp_path: Path, membership: Path) -> None:
    membership.write_text("5:devices:/x\n4:memory,hugetlb:/pod\n0::/\n")
    group(tmp_path / "memory", str(2**63 - 4096), GIB, 0, version=1)
    assert cgroup_free_bytes(tmp_path, membership) is None
    group(tmp_path / "memory" / "pod", str(3 * GIB), GIB, 7, version=1)
    assert cgroup_free_bytes(tmp_path, membership) == 2 * GIB + 7


def test_nothing_to_read_is_no_limit(tmp_path: Path, membership: Path) -> None:
    assert cgroup_free_bytes(tmp_path, membership) is None
    membership.write_text("0::/pod\n")
    assert cgroup_free_bytes(tmp_path, membership) is None


def test_what_this_machine_shows_can_be_read() -> None:
    free = cgroup_free_bytes()
    assert free is None or 0 <= free <= psutil.virtual_memory().total * 1024


def test_cudnn_is_kept_from_attention_while_anything_is_inside() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    one, other = attention_of_any_shape("cuda"), attention_of_any_shape("cuda")
    with one:
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        other.__enter__()
    # As two threads would leave it: the one that came first goes first.
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    other.__exit__(None, None, None)
    assert torch.backends.cuda.cudnn_sdp_enabled() is before
    with attention_of_any_shape("cpu"):
        assert torch.backends.cuda.cudnn_sdp_enabled() is before
