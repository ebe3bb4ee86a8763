"""Which rows of the KV pool hold the tokens of each slot. Bookkeeping only, no model in sight.

The pool is cut into blocks of a few tokens, handed out as texts grow: one long text among many
short ones costs its own length, not a pool of its length for everyone.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch

from onceedit_vllm.errors import ModelError

#: Tokens per block.
BLOCK = 16


class KVSlots:
    """Slots, their lengths in tokens, and their blocks."""

    def __init__(self) -> None:
        self._num_blocks = 0
        self._free_blocks: list[int] = []
        self._free_slots: list[int] = []
        self._num_slots = 0
        self._lengths: dict[int, int] = {}
        self._blocks: dict[int, list[int]] = {}

    @property
    def num_rows(self) -> int:
        """Rows that the pool must have: for all blocks ever held at the same time."""
        return self._num_blocks * BLOCK

    def open(self) -> int:
        """Take an empty slot, the lowest free one."""
        if self._free_slots:
            slot = heapq.heappop(self._free_slots)
        else:
            slot = self._num_slots
            self._num_slots += 1
        self._lengths[slot], self._blocks[slot] = 0, []
        return slot

    def close(self, slot: int) -> None:
        """Give a slot and its blocks back; a slot that is not open is left alone."""
        if slot in self._lengths:
            self.resize(slot, 0)
            del self._lengths[slot], self._blocks[slot]
            heapq.heappush(self._free_slots, slot)

    def length(self, slot: int) -> int:
        """Tokens the slot holds.

        Raises:
            ModelError: The slot is not open.
        """
        try:
            return self._lengths[slot]
        except KeyError:
            raise ModelError(f"plug-in slot {slot} is not open; open() one and step that") from None

    def resize(self, slot: int, length: int) -> None:
        """Forget the slot's tokens beyond `length`, or make room for as many."""
        blocks, needed = self._blocks[slot], -(-length // BLOCK)
        while len(blocks) > needed:
            heapq.heappush(self._free_blocks, blocks.pop())
        while len(blocks) < needed:
            blocks.append(self._take_block())
        self._lengths[slot] = length

    def rows(self, slots: Sequence[int], lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the first tokens of some slots lie in the pool, aligned to the right.

        Args:
            slots: n open slots.
            lengths: (n,) int64: how many tokens of each, at least one.

        Returns:
            (n, longest) int64 rows of the pool, and (n, longest) int64 positions of the tokens in
            their text, negative in the padding on the left (whose rows are the slot's first token).
        """
        longest = int(lengths.max())
        positions = torch.arange(longest) - (longest - lengths[:, None])
        tables = torch.zeros(len(slots), -(-longest // BLOCK), dtype=torch.int64)
        for table, slot, length in zip(tables, slots, lengths.tolist(), strict=True):
            num_blocks = -(-length // BLOCK)
            table[:num_blocks] = torch.tensor(self._blocks[slot][:num_blocks])
        clamped = positions.clamp(min=0)
        return tables.gather(1, clamped // BLOCK) * BLOCK + clamped % BLOCK, positions

    def _take_block(self) -> int:
        if self._free_blocks:
            return heapq.heappop(self._free_blocks)
        self._num_blocks += 1
        return self._num_blocks - 1
