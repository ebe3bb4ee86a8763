"""Checkpoints: whole, of the same training, and there again after an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onceedit_vllm.editing.checkpoint import Checkpoint, Progress
from onceedit_vllm.errors import BadInputError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T}


def progress(step: int) -> Progress:
    return Progress(fingerprint="f", next_round=1, step=step, learnt=(0,), seconds=1.0)


def loaded(checkpoint: Checkpoint) -> Progress:
    found = checkpoint.load()
    assert found is not None
    assert torch.equal(found[1]["a"], TENSORS["a"])
    return found[0]


def test_the_last_one_counts(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "pack", "f")
    assert checkpoint.load() is None
    checkpoint.save(progress(1), TENSORS)
    checkpoint.save(progress(2), TENSORS)
    assert loaded(checkpoint) == progress(2)
    assert [path.name for path in checkpoint.folder.iterdir()] == ["last"]


def test_one_of_another_training_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "pack", "f").save(progress(1), TENSORS)
    with pytest.raises(BadInputError, match="other edits, settings or plug-in"):
        Checkpoint(tmp_path / "pack", "g").load()


def test_killed_while_the_last_one_stood_aside(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "pack", "f")
    checkpoint.save(progress(1), TENSORS)
    aside = checkpoint.folder / ".last.0123abcd.tmp"
    aside.mkdir()
    (checkpoint.folder / "last").rename(aside / ".old")
    assert loaded(checkpoint) == progress(1)
    assert [path.name for path in checkpoint.folder.iterdir()] == ["last"]


def test_an_interruption_keeps_a_whole_one_only(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "pack", "f")
    (checkpoint.folder / ".last.0123abcd.tmp").mkdir(parents=True)
    checkpoint.discard_unfinished()
    assert list(tmp_path.iterdir()) == []
    checkpoint.save(progress(1), TENSORS)
    checkpoint.discard_unfinished()
    assert loaded(checkpoint) == progress(1)
