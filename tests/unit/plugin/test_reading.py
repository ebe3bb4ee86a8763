"""A request as the plug-in reads it: a real synchroniser, and a plug-in that only keeps what it has read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.plugin.reading import Reading
from onceedit_vllm.plugin.runtime import PlugInStep
from onceedit_vllm.plugin.textsync import TextSync
from onceedit_vllm.testing import toy_bpe_tokenizer, toy_sentencepiece_tokenizer

LLM = toy_bpe_tokenizer()
SYNC = TextSync(toy_sentencepiece_tokenizer(), Surface.of(LLM), max_context=10**6)
PROMPT: list[int] = LLM("The capital of France is")["input_ids"]


def start(prompt_ids: list[int]) -> Reading:
    reading = Reading(prompt_ids=prompt_ids)
    reading.queue_prompt(SYNC.start(prompt_ids))
    return reading


class Slot:
    """What a plug-in's KV slot holds after the steps it was given."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def take(self, reading: Reading) -> None:
        step = reading.next_step(0)
        assert step.rollback <= len(self.read)
        del self.read[len(self.read) - step.rollback :]
        self.read.extend(step.token_ids)
        reading.heard(torch.zeros(1), 0)


def whole_text(prompt_ids: list[int], output_ids: list[int]) -> list[int]:
    """What the plug-in must have read, from nothing."""
    text = SYNC.start(prompt_ids)
    text.extend(output_ids)
    return text.ids


def test_a_new_reading_has_decided_nothing() -> None:
    reading = Reading(prompt_ids=PROMPT)
    assert (reading.alpha, reading.slot, reading.text) == (None, None, None)
    assert not reading.is_open
    assert not reading.is_lost
    assert reading.num_pending == reading.num_synced == 0


def test_readings_share_no_lists() -> None:
    one, other = Reading(prompt_ids=PROMPT), Reading(prompt_ids=PROMPT)
    one.output_ids.append(1)
    one.heard(torch.zeros(1), 0)
    assert other.output_ids == []
    assert other.history == {}


def test_the_prompt_is_read_once() -> None:
    reading = start(PROMPT)
    assert reading.num_pending == len(whole_text(PROMPT, []))
    step = PlugInStep(7, 0, tuple(whole_text(PROMPT, [])))
    assert reading.next_step(7) == reading.next_step(7) == step  # until it was heard
    reading.heard(torch.zeros(1), 0)
    assert reading.num_pending == 0
    assert reading.next_step(7) == PlugInStep(7, 0, ())


def test_a_text_whose_slot_is_gone_is_read_anew() -> None:
    reading, slot = start(PROMPT), Slot()
    slot.take(reading)
    reading.output_ids = list(LLM(" Paris is the city")["input_ids"])
    reading.sync_outputs(2)
    slot.take(reading)
    reading.sync_outputs(4)
    reading.queue_anew()
    again = Slot()
    again.take(reading)
    assert again.read == whole_text(PROMPT, reading.output_ids[:4])


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_however_a_text_is_taken_the_plugin_has_read_all_of_it(data: st.DataObject) -> None:
    """Any tokens, pieces of characters included, synced and taken at any moments."""
    tokens = st.lists(st.integers(1, len(LLM) - 1), max_size=30)  # 0 would end the text
    reading, slot, output_ids = start(data.draw(tokens)), Slot(), data.draw(tokens)
    while reading.num_synced < len(output_ids):
        reading.output_ids = output_ids[: data.draw(st.integers(reading.num_synced, len(output_ids)))]
        reading.sync_outputs(data.draw(st.integers(reading.num_synced, len(reading.output_ids))))
        if reading.num_pending and data.draw(st.booleans()):
            slot.take(reading)
    slot.take(reading)
    assert reading.text is not None
    assert slot.read == reading.text.ids == whole_text(list(reading.prompt_ids), output_ids)


def test_what_is_taken_back_before_it_was_read_is_never_sent() -> None:
    """`Par` and `is` are two tokens of the LLM and may be one of the plug-in."""
    reading, slot = start(PROMPT), Slot()
    reading.output_ids = list(LLM(" Paris is the city")["input_ids"])
    for end in range(1, len(reading.output_ids) + 1):
        reading.sync_outputs(end)
    assert reading.next_step(0).rollback == 0
    slot.take(reading)
    assert slot.read == whole_text(PROMPT, reading.output_ids)


def test_syncing_twice_to_the_same_end_changes_nothing() -> None:
    reading = start(PROMPT)
    reading.output_ids = [20, 30, 40]
    reading.sync_outputs(2)
    pending = reading.num_pending
    reading.sync_outputs(2)
    reading.sync_outputs(1)
    assert (reading.num_pending, reading.num_synced) == (pending, 2)


def heard(reading: Reading, num_synced: int, value: float, reach: int) -> None:
    reading.num_synced = num_synced
    reading.heard(torch.tensor([value]), reach)


@pytest.mark.parametrize(
    ("reach", "kept"), [(0, [5]), (1, [4, 5]), (3, [2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])]
)
def test_only_as_much_is_remembered_as_may_still_be_owed(reach: int, kept: list[int]) -> None:
    reading = start(PROMPT)
    for position in range(6):
        heard(reading, position, float(position), reach)
    assert sorted(reading.history) == kept


def test_what_was_said_is_found_by_how_many_tokens_ago() -> None:
    reading = start(PROMPT)
    reading.output_ids = [20, 30, 40]
    for position in (0, 2, 3):
        heard(reading, position, float(position), reach=5)
    said = [reading.said_before(ago) for ago in range(5)]
    assert [None if each is None else each.item() for each in said] == [3.0, 2.0, None, 0.0, None]


def test_a_second_answer_at_the_same_place_replaces_the_first() -> None:
    reading = start(PROMPT)
    heard(reading, 0, 1.0, reach=2)
    heard(reading, 0, 2.0, reach=2)
    said = reading.said_before(0)
    assert said is not None
    assert said.item() == 2.0
