"""Which rows of the pool belong to which slot."""

from __future__ import annotations

import pytest
import torch
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import data, integers

from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.kv_slots import BLOCK, KVSlots


def rows_of(slots: KVSlots, slot: int) -> list[int]:
    length = slots.length(slot)
    if not length:
        return []
    rows, positions = slots.rows([slot], torch.tensor([length]))
    assert positions[0].tolist() == list(range(length))
    return rows[0].tolist()


class SlotsMachine(RuleBasedStateMachine):
    """Random opening, growing, shrinking and closing, against a dict of row lists."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = KVSlots()
        self.known: dict[int, list[int]] = {}

    @rule()
    def open(self) -> None:
        slot = self.slots.open()
        assert slot not in self.known
        self.known[slot] = []

    @precondition(lambda self: self.known)
    @rule(data=data(), length=integers(0, 5 * BLOCK))
    def resize(self, data: object, length: int) -> None:
        slot = data.draw(integers(0, len(self.known) - 1).map(sorted(self.known).__getitem__))  # type: ignore[attr-defined]
        self.slots.resize(slot, length)
        rows = rows_of(self.slots, slot)
        shared = min(length, len(self.known[slot]))
        assert rows[:shared] == self.known[slot][:shared], "tokens moved"
        self.known[slot] = rows

    @precondition(lambda self: self.known)
    @rule(data=data())
    def close(self, data: object) -> None:
        slot = data.draw(integers(0, len(self.known) - 1).map(sorted(self.known).__getitem__))  # type: ignore[attr-defined]
        self.slots.close(slot)
        del self.known[slot]

    @invariant()
    def no_row_is_shared(self) -> None:
        rows = [row for slot in self.known for row in rows_of(self.slots, slot)]
        assert len(rows) == len(set(rows))
        assert all(0 <= row < self.slots.num_rows for row in rows)


TestSlots = SlotsMachine.TestCase


def test_rows_are_aligned_to_the_right() -> None:
    slots = KVSlots()
    short, long = slots.open(), slots.open()
    slots.resize(short, 2)
    slots.resize(long, BLOCK + 1)
    rows, positions = slots.rows([short, long], torch.tensor([2, BLOCK + 1]))
    assert positions[0].tolist() == [*range(-(BLOCK - 1), 0), 0, 1]
    assert rows[0].tolist() == [0] * (BLOCK - 1) + [0, 1]
    assert rows[1].tolist() == [*range(BLOCK, 2 * BLOCK), 2 * BLOCK]


def test_room_is_used_again() -> None:
    slots = KVSlots()
    for _ in range(50):
        slot = slots.open()
        slots.resize(slot, 3 * BLOCK)
        slots.close(slot)
    assert slots.num_rows == 3 * BLOCK


def test_slots_that_are_not_open() -> None:
    slots = KVSlots()
    slots.close(3)
    with pytest.raises(ModelError, match="slot 3 is not open"):
        slots.length(3)
