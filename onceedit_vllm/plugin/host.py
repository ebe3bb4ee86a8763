"""What the runner asks of a plug-in, wherever the plug-in runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from onceedit_vllm.plugin.runtime import PlugInOutput, PlugInStep

__all__ = ["PlugInHost", "PlugInOutput", "PlugInStep"]


class PlugInHost(Protocol):
    """Runs the plug-in. Slots hold the state of one text each."""

    def open(self) -> int:
        """Take an empty slot. Grows the pool when none is free."""

    def close(self, slot: int) -> None:
        """Give a slot back. Its tokens are forgotten."""

    def submit(self, steps: Sequence[PlugInStep]) -> int:
        """Start a step over distinct slots and return a ticket for :meth:`collect`."""

    def collect(self, ticket: int) -> PlugInOutput:
        """Wait for a submitted step. Each ticket is collected once.

        Raises:
            ModelError: The plug-in failed on this step; the slots' state is undefined and the
                caller must close them.
        """

    def shutdown(self) -> None:
        """Free everything. Calling it twice is harmless."""
