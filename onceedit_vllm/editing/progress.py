"""The progress bar of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from onceedit_vllm.terminal import error_console, progress_bar


class TrainingProgress:
    """Shows steps, both losses and the edits learnt, on stderr; silent when not wanted."""

    def __init__(self, num_edits: int, *, visible: bool) -> None:
        """Nothing is shown before :meth:`started`."""
        self._num_edits = num_edits
        self._visible = visible
        self._bar = progress_bar(
            TextColumn("editing"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[losses]}"),
            TimeElapsedColumn(),
            shown=visible,
        )
        self._task = self._bar.add_task("editing", losses="", total=None)

    @contextmanager
    def started(self, total: int, completed: int) -> Iterator[None]:
        """Show the bar while training."""
        self._bar.update(self._task, total=total, completed=completed)
        with self._bar:
            yield

    def say(self, text: str) -> None:
        """A line for people."""
        if self._visible:
            error_console().print(text)

    def step(self, generation_loss: float, gate_loss: float, num_learnt: int) -> None:
        """One optimizer step is done."""
        losses = f"answers {generation_loss:.3f}  gate {gate_loss:.3f}  learnt {num_learnt}/{self._num_edits}"
        self._bar.update(self._task, advance=1, losses=losses)
