"""What ranks need to talk to each other."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """What a rank needs of its group; see :class:`~onceedit_vllm.runner.rank_group.RankGroup`."""

    rank: int
    size: int

    def exchange(self, payload: bytes) -> list[bytes]:
        """What every rank gives, by rank."""

    def tell(self, payload: bytes, seconds: float) -> None:
        """The first rank to all others, another one to the first."""

    def hear(self, writer: int, seconds: float) -> bytes:
        """The next that a rank told."""
