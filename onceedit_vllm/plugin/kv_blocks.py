"""The blocks of the KV pool: who holds them, which are free, which are kept for what they say."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from onceedit_vllm.plugin.prefixes import PrefixIndex


class KVBlocks:
    """A fixed number of blocks, counted by their holders.

    A block that nobody holds is free, or, when its content is known, kept until free ones run out: then
    the one that was held the longest time ago is overwritten first.

    Args:
        num_blocks: Blocks there are.
        prefixes: Which of them are known.
    """

    def __init__(self, num_blocks: int, prefixes: PrefixIndex) -> None:
        self.num_blocks = num_blocks
        self._prefixes = prefixes
        self._num_touched = 0
        self._free: list[int] = []
        self._kept: dict[int, None] = {}  # in the order in which they were let go
        self._holders: dict[int, int] = {}

    @property
    def num_available(self) -> int:
        """Blocks that nobody holds."""
        return self.num_blocks - len(self._holders)

    def is_private(self, block: int) -> bool:
        """Whether its one holder may write into it: nobody else reads it, now or later."""
        return self._holders[block] == 1 and block not in self._prefixes

    def num_available_after(self, changes: Mapping[int, int]) -> int:
        """Blocks that nobody would hold if the number of holders changed so."""
        now_held = sum(block in self._holders for block in changes)
        then_held = sum(self._holders.get(block, 0) + change > 0 for block, change in changes.items())
        return self.num_available + now_held - then_held

    def take(self) -> int:
        """A block for one holder, to be written into: one that is free, else one that was kept."""
        if self._free:
            block = heapq.heappop(self._free)
        elif self._num_touched < self.num_blocks:
            block = self._num_touched
            self._num_touched += 1
        else:
            block = next(iter(self._kept))
            del self._kept[block]
            self._prefixes.forget(block)
        self._holders[block] = 1
        return block

    def hold(self, block: int) -> None:
        """One more holder, who will not write into it."""
        self._kept.pop(block, None)
        self._holders[block] = self._holders.get(block, 0) + 1

    def release(self, block: int) -> None:
        """One holder less."""
        self._holders[block] -= 1
        if self._holders[block]:
            return
        del self._holders[block]
        if block in self._prefixes:
            self._kept[block] = None
        else:
            heapq.heappush(self._free, block)
