"""What becomes of the events of an engine; the plug-in says what the test wants to hear."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.plugin.client import LocalClient
from onceedit_vllm.plugin.gate import Gate
from onceedit_vllm.plugin.packets import Answers, Append, Close, Event, Open, State
from tests.unit.plugin.fakes import (
    ANSWER,
    BROKEN,
    EDITED,
    EOS,
    HALF,
    POISON,
    VOCAB,
    FakeRuntime,
    some_client,
)


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def client(runtime: FakeRuntime) -> LocalClient:
    return some_client(runtime)


def ask(client: LocalClient, *wanted: tuple[int, int], events: Any = ()) -> Answers:
    client.send(events)
    return client.take(wanted)


def states(answers: Answers) -> list[State]:
    return [answer.state for answer in answers.of]


def words(answers: Answers) -> list[int]:
    """The likeliest LLM token of each list."""
    assert answers.lists is not None
    lists = answers.lists
    return lists.ids.gather(1, lists.mass.argmax(1, keepdim=True)).squeeze(1).tolist()


def test_a_request_is_decided_once_and_then_followed(client: LocalClient, runtime: FakeRuntime) -> None:
    answers = ask(client, (3, 0), (5, 0), events=[Open(3, [EDITED, 2]), Open(5, [1, 2])])
    assert states(answers) == [State.SPEAKING, State.CLOSED]
    assert [round(answer.alpha or 0, 3) for answer in answers.of] == [0.993, 0.007]
    assert words(answers) == [3]
    answers = ask(client, (3, 1), events=[Append(3, 0, [4])])
    assert (states(answers), words(answers)) == ([State.SPEAKING], [5])
    assert list(runtime.texts.values()) == [[EDITED, 2, 4]]


def test_lists_are_in_the_order_of_the_question(client: LocalClient) -> None:
    opened = [Open(handle, [EDITED, handle]) for handle in (1, 2, 3)]
    answers = ask(client, (3, 0), (1, 0), (2, 0), events=opened)
    assert words(answers) == [4, 2, 3]
    assert answers.log_probs is not None
    assert answers.log_probs.shape == (3, VOCAB)


def test_asking_again_costs_nothing_and_gives_the_same(client: LocalClient, runtime: FakeRuntime) -> None:
    first = ask(client, (1, 0), events=[Open(1, [EDITED])])
    again = ask(client, (1, 0))
    assert (states(first), words(first)) == (states(again), words(again))
    assert runtime.num_steps == 1


def test_what_is_closed_ended_or_lost_is_forgotten_at_once(client: LocalClient, runtime: FakeRuntime) -> None:
    opened = [Open(1, [1]), Open(2, [EDITED], [3, EOS]), Open(3, [EDITED, POISON]), Open(4, [EDITED], [HALF])]
    wanted = [(1, 0), (2, 2), (3, 0), (4, 1)]
    expected = [State.CLOSED, State.ENDED, State.LOST, State.SILENT]
    assert states(ask(client, *wanted, events=opened)) == expected
    assert list(client._readers[1]._readings) == [4]
    assert list(runtime.texts.values()) == [[EDITED]]
    assert states(ask(client, *wanted)) == [*[State.UNKNOWN] * 3, State.SILENT]


@pytest.mark.parametrize(
    "event", [Append(1, 1, [4]), Append(1, 3, [4]), Append(9, 0, [4]), Close(9), Close(1)]
)
def test_a_gap_a_second_version_and_a_stranger_are_unknown(
    client: LocalClient, runtime: FakeRuntime, event: Event
) -> None:
    ask(client, (1, 2), events=[Open(1, [EDITED], [2, 3])])
    follows = event.handle == 9
    answers = ask(client, (1, 2), (9, 1), events=[event])
    assert states(answers) == [State.SPEAKING if follows else State.UNKNOWN, State.UNKNOWN]
    assert len(runtime.texts) == follows


def test_a_length_that_was_not_told_is_unknown(client: LocalClient) -> None:
    assert states(ask(client, (1, 1), events=[Open(1, [EDITED])])) == [State.UNKNOWN]


def test_a_request_opened_again_starts_afresh(client: LocalClient, runtime: FakeRuntime) -> None:
    ask(client, (1, 1), events=[Open(1, [EDITED], [2])])
    answers = ask(client, (1, 0), events=[Open(1, [EDITED, 4])])
    assert words(answers) == [5]
    assert list(runtime.texts.values()) == [[EDITED, 4]]


def test_the_samples_of_one_prompt_share_one_look(client: LocalClient, runtime: FakeRuntime) -> None:
    opened = [Open(handle, [EDITED, 2]) for handle in range(4)]
    answers = ask(client, *((handle, 0) for handle in range(4)), events=opened)
    assert words(answers) == [3] * 4
    assert [len(batch) for batch in runtime.batches] == [1, 3]
    assert len({answer.alpha for answer in answers.of}) == 1


def test_a_prompt_that_is_remembered_as_closed_is_not_even_translated(runtime: FakeRuntime) -> None:
    client = some_client(runtime)
    sync: Any = client._readers[1]._textsync
    for handle in range(3):
        assert states(ask(client, (handle, 0), events=[Open(handle, [1, 2])])) == [State.CLOSED]
    assert (runtime.num_steps, sync.num_started) == (1, 1)


def test_a_decision_brought_along_is_not_asked_for(client: LocalClient, runtime: FakeRuntime) -> None:
    answers = ask(client, (1, 0), (2, 0), events=[Open(1, [1], alpha=0.25), Open(2, [EDITED], alpha=0.0)])
    assert states(answers) == [State.SPEAKING, State.CLOSED]
    assert [answer.alpha for answer in answers.of] == [0.25, 0.0]
    assert [len(batch) for batch in runtime.batches] == [1]


def test_where_an_edit_is_named_its_answer_is_evidence_and_the_threshold_another(
    runtime: FakeRuntime,
) -> None:
    runtime.answer_probability = 0.999  # log-odds 6.9 beside [WEIGHT]'s -5
    client = some_client(runtime, Gate(0.5, weight_threshold=0.995))
    opened = [Open(1, [1, 2], named=(0,)), Open(2, [1, 3]), Open(3, [EDITED, 3])]
    answers = ask(client, (1, 0), (2, 0), (3, 0), events=opened)
    assert states(answers) == [State.SPEAKING, State.CLOSED, State.CLOSED]
    assert answers.of[0].alpha == pytest.approx(0.87, abs=0.01)


def test_an_empty_text_is_closed_without_the_plugin(client: LocalClient, runtime: FakeRuntime) -> None:
    answers = ask(client, (1, 0), events=[Open(1, [])])
    assert (states(answers), answers.of[0].alpha, runtime.num_steps) == ([State.CLOSED], 0.0, 0)


# What goes wrong.


def test_only_the_text_on_which_the_plugin_fails_is_lost(client: LocalClient, runtime: FakeRuntime) -> None:
    opened = [Open(handle, [EDITED, handle]) for handle in (1, 2, 3)]
    ask(client, (1, 0), (2, 0), (3, 0), events=opened)
    appended = [Append(1, 0, [3]), Append(2, 0, [BROKEN]), Append(3, 0, [4])]
    answers = ask(client, (1, 1), (2, 1), (3, 1), events=appended)
    assert states(answers) == [State.SPEAKING, State.LOST, State.SPEAKING]
    assert words(answers) == [4, 5]
    assert sorted(runtime.texts.values()) == [[EDITED, 1, 3], [EDITED, 3, 4]]
    assert (client.tally()["lost"], client.tally()["retries"]) == (1, 3)
    answers = ask(client, (1, 2), (3, 2), events=[Append(1, 1, [5]), Append(3, 1, [5])])
    assert words(answers) == [6, 6]


def test_new_prompts_are_read_apart_from_running_texts(client: LocalClient, runtime: FakeRuntime) -> None:
    ask(client, (1, 0), events=[Open(1, [EDITED])])
    events = [Append(1, 0, [3]), Open(2, [EDITED, BROKEN], alpha=1.0), Open(3, [EDITED, 2], alpha=1.0)]
    answers = ask(client, (1, 1), (2, 0), (3, 0), events=events)
    assert states(answers) == [State.SPEAKING, State.LOST, State.SPEAKING]
    assert client.tally()["retries"] == 2  # the running text was not read twice
    (slot,) = runtime.batches[0]
    assert [batch for batch in runtime.batches if slot in batch] == [[slot], [slot]]


def test_a_text_without_room_is_lost_and_counted_and_the_others_read(
    client: LocalClient, runtime: FakeRuntime
) -> None:
    runtime.room = 6
    opened = [Open(1, [EDITED, 1, 2]), Open(2, [EDITED, 1, 2, 3]), Open(3, [EDITED, 4, 5])]
    answers = ask(client, (1, 0), (2, 0), (3, 0), events=opened)
    assert states(answers) == [State.SPEAKING, State.LOST, State.SPEAKING]
    assert (client.tally()["kv_full"], client.tally()["lost"]) == (1, 1)
    client.send([Close(1), Close(3)])
    assert states(ask(client, (2, 0), events=[Open(2, [EDITED, 1, 2, 3])])) == [State.SPEAKING]


def test_where_the_plugin_is_gone_all_are_lost_and_said_once(
    client: LocalClient, runtime: FakeRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    ask(client, (1, 0), (2, 0), events=[Open(1, [EDITED, 1]), Open(2, [EDITED, 2])])
    runtime.fails = True
    events = [Append(1, 0, [3]), Append(2, 0, [3]), Open(4, [EDITED, 3]), Open(5, [EDITED, 3])]
    answers = ask(client, (1, 1), (2, 1), (4, 0), (5, 0), events=events)
    assert states(answers) == [State.LOST] * 4
    assert answers.lists is None
    assert runtime.texts == {}
    assert sum("answers this request alone" in record.message for record in caplog.records) == 1
    runtime.fails = False
    assert states(ask(client, (1, 0), events=[Open(1, [EDITED])])) == [State.SPEAKING]


def test_no_view_of_a_batch_is_kept(client: LocalClient) -> None:
    """It would keep the distributions of all the batch's rows alive."""
    opened = [Open(handle, [EDITED, handle]) for handle in range(1, 5)]
    ask(client, *((handle, 0) for handle in range(1, 5)), events=opened)
    kept = [said for reading in client._readers[1]._readings.values() for said in reading.history.values()]
    assert len(kept) == 4
    assert {said.untyped_storage().nbytes() for said in kept} == {VOCAB * 4}


# What the plug-in owes.


def test_what_a_spelt_token_lacks_is_owed(client: LocalClient) -> None:
    carrier: Any = client._carrier
    ask(client, (1, 0), events=[Open(1, [EDITED, 4])])
    ask(client, (1, 1), events=[Append(1, 0, [5])])
    assert carrier.owed[0] == [None]
    (owed,) = carrier.owed[1]
    assert (owed.ids.tolist(), owed.mass.tolist(), float(owed.weight)) == ([9], [1.0], 1.0)


def test_what_is_owed_survives_a_preemption(client: LocalClient) -> None:
    carrier: Any = client._carrier
    ask(client, (1, 0), events=[Open(1, [EDITED, 4])])
    ask(client, (1, 1), events=[Append(1, 0, [5])])
    ask(client, (2, 1), events=[Close(1), Open(2, [EDITED, 4], [5])])
    (before,), (after,) = carrier.owed[-2:]
    assert before.weight == after.weight
    assert torch.equal(before.ids, after.ids)


def test_nothing_is_owed_for_a_token_the_plugin_did_not_mean(client: LocalClient) -> None:
    carrier: Any = client._carrier
    ask(client, (1, 0), events=[Open(1, [EDITED, 2])])
    ask(client, (1, 1), events=[Append(1, 0, [5])])
    (owed,) = carrier.owed[-1]
    assert float(owed.weight) == 0.0
    assert not owed.mass.any()


def test_whole_lists_can_be_asked_for_once_more(client: LocalClient) -> None:
    answers = ask(client, (1, 0), (2, 0), events=[Open(1, [EDITED]), Open(2, [EDITED, 3])])
    assert answers.lists is not None
    again = client.more([2])
    assert again.whole
    assert torch.equal(again.mass, answers.lists.mass[1:])


tokens = st.integers(1, VOCAB - 1).filter(lambda token: token not in (POISON, BROKEN, ANSWER))
operations = st.lists(
    st.tuples(st.sampled_from(["open", "append", "close", "take"]), st.integers(0, 3), tokens), max_size=30
)


@settings(max_examples=80, deadline=None)
@given(operations)
def test_any_history_ends_like_a_fresh_start_and_leaks_nothing(history: list[tuple[str, int, int]]) -> None:
    """A pure function of (prompt, outputs): opened anew with the last state, the answers are the same."""
    runtime = FakeRuntime()
    live, requests = some_client(runtime), dict[int, tuple[list[int], list[int]]]()
    for operation, handle, token in history:
        if operation == "open":
            requests[handle] = ([EDITED, token], [])
            live.send([Open(handle, *requests[handle])])
        elif operation == "close":
            requests.pop(handle, None)
            live.send([Close(handle)])
        elif operation == "append" and handle in requests:
            live.send([Append(handle, len(requests[handle][1]), [token])])
            requests[handle][1].append(token)
        elif operation == "take":
            live.take([(handle, len(outputs)) for handle, (_, outputs) in requests.items()])
    wanted = [(handle, len(outputs)) for handle, (_, outputs) in requests.items()]
    fresh = some_client(FakeRuntime())
    fresh.send([Open(handle, prompt, list(outputs)) for handle, (prompt, outputs) in requests.items()])
    one, other = live.take(wanted), fresh.take(wanted)
    assert one.of == other.of
    if one.lists is not None and other.lists is not None:
        assert torch.equal(one.lists.mass, other.lists.mass)
    live.shutdown()
    assert runtime.texts == {}


# Packs that are changed while texts are under way.


def test_a_text_goes_on_with_the_pack_it_was_begun_with(runtime: FakeRuntime) -> None:
    newer = FakeRuntime()
    client = some_client(runtime, None, newer)
    packs = client._packs
    ask(client, (1, 0), events=[Open(1, [EDITED])])
    packs.activate(2)
    assert client.active.epoch == 2
    opened = [Append(1, 0, [3]), Open(2, [EDITED, 4]), Open(3, [EDITED, 5], epoch=1)]
    answers = ask(client, (2, 0), (1, 1), (3, 0), events=opened)
    assert words(answers) == [5, 4, 6]
    assert sorted(runtime.texts.values()) == [[EDITED, 3], [EDITED, 5]]
    assert list(newer.texts.values()) == [[EDITED, 4]]


def test_a_pack_is_let_go_of_when_its_last_text_has_ended(runtime: FakeRuntime) -> None:
    client = some_client(runtime, None, FakeRuntime())
    packs = client._packs
    ask(client, (1, 0), (2, 0), events=[Open(1, [EDITED]), Open(2, [EDITED])])
    packs.activate(2)
    client.send([Close(1)])
    assert packs.tally()["packs"] == 2
    assert states(ask(client, (2, 1), events=[Append(2, 0, [EOS])])) == [State.ENDED]
    assert (packs.tally()["packs"], packs.tally()["epoch"]) == (1, 2)
    assert runtime.texts == {}
    # Who comes late for it is told, and opens again with the pack that is active.
    assert states(ask(client, (3, 0), events=[Open(3, [EDITED], epoch=1)])) == [State.UNKNOWN]


def test_after_a_deadline_texts_of_an_earlier_pack_must_be_opened_again(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onceedit_vllm.plugin.packs._RETIRE_SECONDS", 0.0)
    client = some_client(runtime, None, FakeRuntime())
    ask(client, (1, 0), events=[Open(1, [EDITED])])
    client._packs.activate(2)
    assert states(ask(client, (1, 1), events=[Append(1, 0, [3])])) == [State.UNKNOWN]
    assert (runtime.texts, client.tally()["texts"]) == ({}, 0)


def test_what_was_prepared_is_taken_and_what_was_not_activated_is_let_go_of(runtime: FakeRuntime) -> None:
    newer = FakeRuntime()
    client = some_client(runtime, None, newer)
    packs: Any = client._packs
    client.prepare(packs.find(2))
    prepared = client._prepared[2]
    packs.activate(2)
    ask(client, (1, 0), events=[Open(1, [EDITED])])
    assert client._readers[2] is prepared
    assert client._prepared == {}
    client.prepare(packs.find(2))
    client.keep({1})
    assert (client._prepared, client._readers) == ({}, {})


def test_a_pack_that_is_not_loaded_cannot_be_activated(client: LocalClient) -> None:
    with pytest.raises(BadInputError, match=r"no pack number 7 .* loaded are \[1\]"):
        client._packs.activate(7)
    assert client.active.epoch == 1
