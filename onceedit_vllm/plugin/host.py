"""What an engine asks of a plug-in, wherever the plug-in runs.

Everything that knows the plug-in's tokens lives behind it: text synchronisation, the keys and values it
has computed, what it said before and still owes, the gate's memory, and the way to the LLM's vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

    from onceedit_vllm.alignment.spelling import Spellings
    from onceedit_vllm.alignment.surface import Surface
    from onceedit_vllm.edits import EditRecord
    from onceedit_vllm.fusion.lists import Lists
    from onceedit_vllm.plugin.packets import Answers, Event


class Vocabulary(NamedTuple):
    """What a host must know of an LLM.

    Attributes:
        surface: What the LLM's tokens stand for.
        carry: (V_s,) int64, the LLM token of each plug-in token, -1 where none.
        spellings: The plug-in tokens that the LLM writes in several.
        width: V_l, the width of its logits.
    """

    surface: Surface
    carry: torch.Tensor
    spellings: Spellings
    width: int


class ActivePack(NamedTuple):
    """The pack that new requests get.

    Attributes:
        epoch: Its number at the host.
        edits: What it was made from, by their place in it.
    """

    epoch: int
    edits: Sequence[EditRecord]


class PlugInClient(Protocol):
    """One engine's end. Its requests have handles of the engine's choice."""

    @property
    def active(self) -> ActivePack:
        """The pack that new requests get. Looking does not wait."""

    def send(self, events: Sequence[Event]) -> None:
        """Tell what happened to requests. Neither waits nor raises."""

    def take(self, wanted: Sequence[tuple[int, int]]) -> Answers:
        """What the plug-in says about the next token of some requests.

        Args:
            wanted: Distinct handles, each with the number of its output tokens. Asked again with the same
                number, the answer is the same.

        Raises:
            OnceEditError: The host is gone. A request that fails is LOST, without an exception.
        """

    def more(self, handles: Sequence[int]) -> Lists:
        """Whole lists of requests that were SPEAKING when last taken, where those were cut."""

    def tally(self) -> dict[str, int]:
        """Counts since the start, by name."""

    def shutdown(self) -> None:
        """Free everything. Calling it twice is harmless."""
