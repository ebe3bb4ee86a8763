"""Checkpoints of a training, in a work folder beside the pack to be."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.unrelated import Unrelated
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.folders import sweep_leftovers, written_folder
from onceedit_vllm.wordings.wordings import Wordings

if TYPE_CHECKING:
    from torch import Tensor

_STATE = "state.safetensors"
_PROGRESS = "progress.json"
#: Settings that change how often checkpoints are written, not what is trained.
_IRRELEVANT = {"checkpoint_seconds"}
#: What of written texts is trained; aliases are the edits' by then.
_TRAINED = {"id", "asking", "others"}


class Progress(BaseModel):
    """How far a training has come.

    Attributes:
        fingerprint: Of the plug-in, the edits, their wordings, the unrelated prompts and the settings.
        next_round: The round to go on with.
        step: Optimizer steps taken.
        learnt: Edits for which the gate was right too.
        requeued: Edits that were learnt at one look and not at the next.
        seconds: Time spent so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    next_round: int
    step: int
    learnt: tuple[int, ...]
    requeued: tuple[int, ...] = ()
    seconds: float


def training_fingerprint(
    base: str,
    edits: Sequence[EditRecord],
    unrelated: Sequence[Unrelated] | None,
    config: EditingConfig,
    wordings: Sequence[Wordings] = (),
) -> str:
    """Identify a training; only an equal one may be resumed."""
    parts: dict[str, Any] = {
        "base": base,
        "edits": [edit.model_dump(mode="json") for edit in edits],
        "unrelated": unrelated,
        "config": config.model_dump(mode="json", exclude=_IRRELEVANT),
    }
    # Where there are none, a training is what it was before there could be any.
    if wordings:
        parts["wordings"] = [line.model_dump(mode="json", include=_TRAINED) for line in wordings]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Checkpoint:
    """The last complete checkpoint of one training; each is moved into place in one step."""

    def __init__(self, out: Path, fingerprint: str) -> None:
        """Name the work folder of the pack `out`; nothing is written yet."""
        self.folder = out.parent / f".{out.name}.work"
        self._last = self.folder / "last"
        self.fingerprint = fingerprint

    def load(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """The checkpoint, or None where there is none yet.

        Raises:
            BadInputError: It belongs to another training.
        """
        from safetensors.torch import load_file

        sweep_leftovers(self._last)  # an interrupted save may have moved the last one aside
        if not (self._last / _PROGRESS).is_file():
            return None
        try:
            progress = Progress.model_validate_json((self._last / _PROGRESS).read_text(encoding="utf-8"))
        except ValidationError as error:
            raise BadInputError(f"{self._last}: damaged ({error}); start again without resuming") from error
        if progress.fingerprint != self.fingerprint:
            raise BadInputError(
                f"{self.folder}: was left by a training with other edits, settings or plug-in; "
                "resume with the same ones, or start again without resuming"
            )
        return progress, load_file(self._last / _STATE)

    def save(self, progress: Progress, tensors: dict[str, Tensor]) -> None:
        """Replace the checkpoint."""
        from safetensors.torch import save_file

        with written_folder(self._last, replace=True) as fresh:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, fresh / _STATE)
            (fresh / _PROGRESS).write_text(progress.model_dump_json(), encoding="utf-8")

    def discard(self) -> None:
        """Remove the work folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def discard_unfinished(self) -> None:
        """After an interruption: keep a complete checkpoint, remove everything else."""
        sweep_leftovers(self._last)
        if not (self._last / _PROGRESS).is_file():
            self.discard()
