"""Which rows of the pool belong to which slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from onceedit_vllm.errors import KVCacheFullError, ModelError
from onceedit_vllm.plugin.kv_slots import KVSlots
from onceedit_vllm.plugin.prefixes import BLOCK, PrefixIndex
from onceedit_vllm.plugin.runtime import PlugInStep

NUM_BLOCKS = 12


def rows_of(slots: KVSlots, slot: int) -> list[int]:
    length = slots.length(slot)
    if not length:
        return []
    rows, positions = slots.rows([slot], [length])
    assert positions[0].tolist() == list(range(length))
    rows_of_slot: list[int] = rows[0].tolist()
    return rows_of_slot


def tell(slots: KVSlots, slot: int, token_ids: Sequence[int], rollback: int = 0) -> int:
    """One step; tokens that were taken over."""
    (intake,), _ = slots.admit([PlugInStep(slot, rollback, token_ids)])
    slots.register([slot])
    return intake.start


class Memory:
    """What a runtime does with the rows: writes what it reads, every row with all tokens before it."""

    def __init__(self, slots: KVSlots) -> None:
        self.slots = slots
        self.rows: dict[int, tuple[int, ...]] = {}

    def take(self, steps: Sequence[PlugInStep], texts: dict[int, list[int]]) -> None:
        intakes, copies = self.slots.admit(steps)
        pairs = list(zip(copies.sources, copies.targets, strict=True))
        moved = {to * BLOCK + i: self.rows.get(at * BLOCK + i, ()) for at, to in pairs for i in range(BLOCK)}
        self.rows |= moved
        for place, (step, intake) in enumerate(zip(steps, intakes, strict=True)):
            assert all(writer < place for writer in intake.waits_for)
            text = texts[step.slot]
            for i, row in enumerate(rows_of(self.slots, step.slot)[intake.start :], intake.start):
                self.rows[row] = tuple(text[: i + 1])
        self.slots.register([step.slot for step in steps])


class SlotsMachine(RuleBasedStateMachine):
    """Random opening, stepping and closing; few different tokens, so that many texts begin alike."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = KVSlots(NUM_BLOCKS)
        self.memory = Memory(self.slots)
        self.texts: dict[int, list[int]] = {}

    @rule()
    def open(self) -> None:
        slot = self.slots.open()
        assert slot not in self.texts
        self.texts[slot] = []

    @rule(data=st.data())
    def step(self, data: Any) -> None:
        chosen = data.draw(st.sets(st.sampled_from(sorted(self.texts)))) if self.texts else ()
        steps, after = [], dict(self.texts)
        for slot in sorted(chosen):
            text = self.texts[slot]
            rollback = data.draw(st.integers(0, len(text)))
            new = [1] * data.draw(st.integers(1, 4 * BLOCK)) + data.draw(
                st.lists(st.integers(2, 3), max_size=3)
            )
            steps.append(PlugInStep(slot, rollback, new))
            after[slot] = text[: len(text) - rollback] + new
        before = self.state()
        if sum(-(-len(text) // BLOCK) for text in after.values()) <= NUM_BLOCKS:
            self.memory.take(steps, after)
            self.texts = after
            return
        full = None
        try:
            self.memory.take(steps, after)
            self.texts = after
        except KVCacheFullError as error:
            full = error.slot
        if full is not None:
            assert full in chosen
            assert self.state() == before

    def state(self) -> Any:
        return {slot: rows_of(self.slots, slot) for slot in self.texts}, self.slots.num_free_tokens

    @rule(data=st.data())
    def close(self, data: Any) -> None:
        if self.texts:
            slot = data.draw(st.sampled_from(sorted(self.texts)))
            self.slots.close(slot)
            del self.texts[slot]

    @invariant()
    def every_slot_reads_its_text(self) -> None:
        for slot, text in self.texts.items():
            rows = rows_of(self.slots, slot)
            assert [self.memory.rows[row] for row in rows] == [tuple(text[: i + 1]) for i in range(len(text))]
            assert all(0 <= row < NUM_BLOCKS * BLOCK for row in rows)

    @invariant()
    def nothing_leaks(self) -> None:
        held = {row // BLOCK for slot in self.texts for row in rows_of(self.slots, slot)}
        assert self.slots.num_free_tokens == self.slots.capacity - len(held) * BLOCK


TestSlots = SlotsMachine.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_rows_are_aligned_to_the_right() -> None:
    slots = KVSlots(NUM_BLOCKS)
    short, long = slots.open(), slots.open()
    tell(slots, short, [1, 2])
    tell(slots, long, [3] * (BLOCK + 1))
    rows, positions = slots.rows([short, long], [2, BLOCK + 1])
    assert positions[0].tolist() == [*range(-(BLOCK - 1), 0), 0, 1]
    assert rows[0].tolist() == [0] * (BLOCK - 1) + [0, 1]
    assert rows[1].tolist() == [*range(BLOCK, 2 * BLOCK), 2 * BLOCK]


def test_the_longest_known_prefix_is_taken_over() -> None:
    slots = KVSlots(NUM_BLOCKS)
    text = list(range(3 * BLOCK))
    assert tell(slots, slots.open(), text) == 0
    assert tell(slots, slots.open(), text) == 2 * BLOCK, "the last token is always read"
    assert tell(slots, slots.open(), [*text[: 2 * BLOCK], 99]) == 2 * BLOCK
    assert tell(slots, slots.open(), [99, *text[1:]]) == 0
    assert slots.num_reused_tokens == 4 * BLOCK


def test_a_text_of_the_same_step_is_waited_for_when_that_saves_much() -> None:
    slots = KVSlots(NUM_BLOCKS)
    common = list(range(2 * BLOCK))
    texts = [[*common, 90], [*common[:BLOCK], 91], [*common, 92]]
    intakes, _ = slots.admit([PlugInStep(slots.open(), 0, text) for text in texts])
    assert [intake.start for intake in intakes] == [0, 0, 2 * BLOCK]
    assert [set(intake.waits_for) for intake in intakes] == [set(), set(), {0}]


def test_where_a_pass_more_is_dear_only_long_texts_are_waited_for() -> None:
    slots = KVSlots(NUM_BLOCKS, min_shared=3 * BLOCK)
    common = list(range(3 * BLOCK))
    texts = [[*common, 90], [*common[: 2 * BLOCK], 91], [*common, 92]]
    intakes, _ = slots.admit([PlugInStep(slots.open(), 0, text) for text in texts])
    assert [intake.start for intake in intakes] == [0, 0, 3 * BLOCK]
    slots.register([0, 1, 2])
    # What another step has read costs no pass.
    assert tell(slots, slots.open(), [*common[:BLOCK], 93]) == BLOCK


def test_known_blocks_are_given_up_last_and_oldest_first() -> None:
    slots = KVSlots(4)
    first, second = [1] * BLOCK, [2] * BLOCK
    for text in (first, second):
        slot = slots.open()
        tell(slots, slot, text)
        slots.close(slot)
    slot = slots.open()
    tell(slots, slot, [3] * (2 * BLOCK))  # the two that are free
    again = slots.open()
    assert tell(slots, again, [*second, 9]) == BLOCK  # its tail takes the room of the first
    slots.close(again)
    slots.close(slot)
    assert tell(slots, slots.open(), [*first, 9]) == 0


def test_a_rollback_into_a_known_block_copies_it() -> None:
    slots = KVSlots(4)
    slot = slots.open()
    tell(slots, slot, [1] * BLOCK)
    (intake,), copies = slots.admit([PlugInStep(slot, 3, [2])])
    assert (intake.start, copies.sources, copies.targets) == (BLOCK - 3, [0], [1])
    assert tell(slots, slots.open(), [*[1] * BLOCK, 5]) == BLOCK


def test_a_block_is_not_copied_for_lack_of_room() -> None:
    slots = KVSlots(1)
    slot = slots.open()
    tell(slots, slot, [1] * BLOCK)
    _, copies = slots.admit([PlugInStep(slot, 3, [2])])
    assert copies.sources == copies.targets == [0]


def test_texts_of_one_hash_are_told_apart() -> None:
    index = PrefixIndex()
    # In CPython -1 and -2 have one hash, and so have tuples of them.
    first, second = (-1,) * BLOCK, (-2,) * BLOCK
    assert hash(first) == hash(second)
    index.add(0, first, 5)
    assert [known.place for known in index.match(first)] == [5]
    assert index.match(second) == []


def test_slots_that_are_not_open() -> None:
    slots = KVSlots(NUM_BLOCKS)
    slots.close(3)
    with pytest.raises(ModelError, match="slot 3 is not open"):
        slots.length(3)
