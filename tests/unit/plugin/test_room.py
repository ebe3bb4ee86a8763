"""A second plug-in is loaded only where there is memory for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.plugin import room
from onceedit_vllm.plugin.room import refuse_without_room

CPU = torch.device("cpu")
SMALL = PlugInConfig(kv_cache_bytes=2**20)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Its weights are all that is looked at."""
    (tmp_path / "model.safetensors").write_bytes(bytes(2**20))
    return tmp_path


def test_where_there_is_room_nothing_is_refused(model_dir: Path) -> None:
    refuse_without_room(model_dir, SMALL, CPU)


def test_more_than_the_machine_has_is_refused(model_dir: Path) -> None:
    with pytest.raises(BadInputError, match=r"it takes 1125899\.91 GB on cpu.*plugin\.kv_cache_bytes"):
        refuse_without_room(model_dir, PlugInConfig(kv_cache_bytes=2**50), CPU)


@pytest.mark.parametrize(("left", "is_refused"), [(3 * 2**20, False), (3 * 2**20 - 1, True), (None, False)])
def test_a_container_may_have_less(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, left: int | None, is_refused: bool
) -> None:
    """Twice the weights, and the keys and values."""
    monkeypatch.setattr(room, "cgroup_free_bytes", lambda: left)
    if not is_refused:
        refuse_without_room(model_dir, SMALL, CPU)
        return
    with pytest.raises(BadInputError, match=r"no room for a second plug-in"):
        refuse_without_room(model_dir, SMALL, CPU)
