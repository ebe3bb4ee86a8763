"""Checkpoints: whole, of the same training, and there again after an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.checkpoint import Checkpoint, Progress, training_fingerprint
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.wordings.wordings import Wordings

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


def test_what_was_written_for_the_edits_makes_another_training_and_who_wrote_it_does_not() -> None:
    edits = [EditRecord(id="a", prompt="X is", target="y", subject="X")]
    line = Wordings(id="a", asking=("What is X?",), model="toy", date="2026-01-01", dropped={"z": 1})
    changed = [line.model_copy(update={field: ("X, then?",)}) for field in ("asking", "others")]

    def of(*wordings: Wordings) -> str:
        return training_fingerprint("base", edits, None, EditingConfig(), wordings)

    assert of() == training_fingerprint("base", edits, None, EditingConfig())
    assert len({of(), of(line), *map(of, changed)}) == 4
    assert of(line) == of(line.model_copy(update={"model": "other", "date": None, "dropped": {}}))
