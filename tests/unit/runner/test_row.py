"""One request's state, with a real synchroniser and a plug-in that only keeps what it has read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.plugin.host import PlugInStep
from onceedit_vllm.plugin.textsync import TextSync
from onceedit_vllm.runner.options import DEFAULT_OPTIONS
from onceedit_vllm.runner.row import Row
from onceedit_vllm.testing import toy_bpe_tokenizer, toy_sentencepiece_tokenizer

LLM = toy_bpe_tokenizer()
SYNC = TextSync(toy_sentencepiece_tokenizer(), Surface.of(LLM), max_context=10**6)
PROMPT: list[int] = LLM("The capital of France is")["input_ids"]


def start(prompt_ids: list[int]) -> Row:
    row = Row(prompt_ids=prompt_ids)
    row.queue_prompt(SYNC.start(prompt_ids))
    return row


class Reader:
    """What a plug-in's KV slot holds after the steps it was given."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def take(self, step: PlugInStep) -> None:
        assert step.rollback <= len(self.read)
        del self.read[len(self.read) - step.rollback :]
        self.read.extend(step.token_ids)


def whole_text(prompt_ids: list[int], output_ids: list[int]) -> list[int]:
    """What the plug-in must have read, from nothing."""
    text = SYNC.start(prompt_ids)
    text.extend(output_ids)
    return text.ids


def test_a_new_row_has_decided_nothing() -> None:
    row = Row(prompt_ids=PROMPT)
    assert (row.options, row.want_search, row.logit_bias) == (DEFAULT_OPTIONS, True, None)
    assert (row.alpha, row.gated, row.failed, row.slot, row.text) == (None, False, False, None, None)
    assert row.num_pending == row.num_synced == 0


def test_rows_share_no_lists() -> None:
    one, other = Row(prompt_ids=PROMPT), Row(prompt_ids=PROMPT)
    one.output_ids.append(1)
    one.heard(torch.zeros(1), 0)
    assert other.output_ids == []
    assert other.history == {}


def test_the_prompt_is_read_once() -> None:
    row = start(PROMPT)
    assert row.num_pending == len(whole_text(PROMPT, []))
    assert row.take_step(7) == PlugInStep(7, 0, tuple(whole_text(PROMPT, [])))
    assert row.num_pending == 0
    assert row.take_step(7) == PlugInStep(7, 0, ())


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_however_a_text_is_taken_the_plugin_has_read_all_of_it(data: st.DataObject) -> None:
    """Any tokens, pieces of characters included, synced and taken at any moments."""
    tokens = st.lists(st.integers(1, len(LLM) - 1), max_size=30)  # 0 would end the text
    row, reader, output_ids = start(data.draw(tokens)), Reader(), data.draw(tokens)
    while row.num_synced < len(output_ids):
        row.output_ids = output_ids[: data.draw(st.integers(row.num_synced, len(output_ids)))]
        row.sync_outputs(data.draw(st.integers(row.num_synced, len(row.output_ids))))
        if row.num_pending and data.draw(st.booleans()):
            reader.take(row.take_step(0))
    reader.take(row.take_step(0))
    assert row.text is not None
    assert reader.read == row.text.ids == whole_text(list(row.prompt_ids), output_ids)


def test_what_is_taken_back_before_it_was_read_is_never_sent() -> None:
    """`Par` and `is` are two tokens of the LLM and may be one of the plug-in."""
    row, reader = start(PROMPT), Reader()
    row.output_ids = list(LLM(" Paris is the city")["input_ids"])
    for end in range(1, len(row.output_ids) + 1):
        row.sync_outputs(end)
    step = row.take_step(0)
    reader.take(step)
    assert step.rollback == 0
    assert reader.read == whole_text(PROMPT, row.output_ids)


def test_syncing_twice_to_the_same_end_changes_nothing() -> None:
    row = start(PROMPT)
    row.output_ids = [20, 30, 40]
    row.sync_outputs(2)
    pending = row.num_pending
    row.sync_outputs(2)
    row.sync_outputs(1)
    assert (row.num_pending, row.num_synced) == (pending, 2)


def heard(row: Row, num_synced: int, value: float, reach: int) -> None:
    row.num_synced = num_synced
    row.heard(torch.tensor([value]), reach)


@pytest.mark.parametrize(
    ("reach", "kept"), [(0, [5]), (1, [4, 5]), (3, [2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])]
)
def test_only_as_much_is_remembered_as_may_still_be_owed(reach: int, kept: list[int]) -> None:
    row = start(PROMPT)
    for position in range(6):
        heard(row, position, float(position), reach)
    assert sorted(row.history) == kept


def test_what_was_said_is_found_by_how_many_tokens_ago() -> None:
    row = start(PROMPT)
    row.output_ids = [20, 30, 40]
    for position in (0, 2, 3):
        heard(row, position, float(position), reach=5)
    said = [row.said_before(ago) for ago in range(5)]
    assert [None if each is None else each.item() for each in said] == [3.0, 2.0, None, 0.0, None]


def test_a_second_answer_at_the_same_place_replaces_the_first() -> None:
    row = start(PROMPT)
    heard(row, 0, 1.0, reach=2)
    heard(row, 0, 2.0, reach=2)
    said = row.said_before(0)
    assert said is not None
    assert said.item() == 2.0
