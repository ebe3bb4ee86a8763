"""Progress on standard error, so that standard output stays the program's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from onceedit_vllm import terminal

#: Sets how much is done, and optionally what is being done.
Report = Callable[[int, str | None], None]


@contextmanager
def progress_bar(title: str, total: int, *, shown: bool, in_bytes: bool = False) -> Iterator[Report]:
    """A bar from 0 to `total`; without a terminal, one line at the start and one at the end.

    Args:
        title: What is going on.
        total: The amount at which the bar is full.
        shown: False shows nothing.
        in_bytes: Label the amount as a download.
    """
    amount: tuple[ProgressColumn, ...] = (MofNCompleteColumn(),)
    if in_bytes:
        amount = (DownloadColumn(), TransferSpeedColumn())
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), *amount, TimeElapsedColumn())
    with terminal.progress_bar(*columns, shown=shown) as progress:
        if shown and not progress.console.is_terminal:
            progress.console.print(f"{title} ...")
        task = progress.add_task(title, total=total)

        def report(done: int, doing: str | None = None) -> None:
            progress.update(
                task, completed=min(done, total), description=f"{title}: {doing}" if doing else title
            )

        yield report
