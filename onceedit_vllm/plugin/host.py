"""What the runner asks of a plug-in, wherever the plug-in runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch


class PlugInStep(NamedTuple):
    """One row of a plug-in step.

    Attributes:
        slot: The KV slot, as returned by :meth:`PlugInHost.open`.
        rollback: How many of the slot's last tokens to forget before reading new ones.
        token_ids: Plug-in tokens to read, at least one.
    """

    slot: int
    rollback: int
    token_ids: Sequence[int]


class PlugInOutput(NamedTuple):
    """What a plug-in says after a step, one row per :class:`PlugInStep`, in the same order.

    Attributes:
        log_probs: (num_steps, V_s) float32, log-softmax over the plug-in's vocabulary with
            the [WEIGHT] token (and padding rows without a token) at -inf.
        weight_logits: (num_steps,) float32, the raw [WEIGHT] logit at the last token read.
    """

    log_probs: torch.Tensor
    weight_logits: torch.Tensor


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
