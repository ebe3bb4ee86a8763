"""The V1 adapter against vLLM's own batch updates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.runner.v1 import V1Adapter
from tests.unit.plugin.fakes import BROKEN, EDITED, EOS, VOCAB, FakeRuntime
from tests.unit.runner.fakes import NAMED, some_scope, some_step

pytestmark = pytest.mark.integration

vllm = pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.fixture
def runtime():
    return FakeRuntime()


@pytest.fixture
def adapter(runtime):
    return V1Adapter(some_step(runtime))


def batch_update(*, removed=(), added=(), moved=()):
    from vllm.v1.sample.logits_processor import BatchUpdate

    return BatchUpdate(batch_size=8, removed=removed, added=added, moved=moved)


def greedy(**kwargs):
    return vllm.SamplingParams(temperature=0.0, **kwargs)


def applied(adapter, num_rows=4):
    logits = torch.zeros(num_rows, VOCAB)
    return adapter.apply(logits)


def test_rows_follow_their_requests(adapter):
    outputs: list[list[int]] = [[], []]
    adapter.update_state(
        batch_update(added=[(0, greedy(), [1], outputs[0]), (1, greedy(), [EDITED], outputs[1])])
    )
    logits = applied(adapter)
    assert not logits[[0, 2, 3]].any()
    assert int(logits[1].argmax()) == EDITED + 1
    # vLLM appends to the very list it handed over.
    outputs[1].append(4)
    assert int(applied(adapter)[1].argmax()) == 5


def test_moves_and_swaps(adapter):
    from vllm.v1.sample.logits_processor import MoveDirectionality

    adapter.update_state(batch_update(added=[(0, greedy(), [EDITED, 2], []), (3, greedy(), [EDITED, 5], [])]))
    adapter.update_state(batch_update(moved=[(3, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    adapter.update_state(batch_update(moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert applied(adapter).argmax(-1).tolist() == [6, 3, 0, 0]


def test_an_addition_replaces_a_live_row_and_a_removal_frees_its_slot(adapter, runtime):
    adapter.update_state(batch_update(added=[(0, greedy(), [EDITED, 2], [])]))
    applied(adapter)
    adapter.update_state(batch_update(added=[(0, greedy(), [EDITED, 5], [])]))
    assert int(applied(adapter)[0].argmax()) == 6
    assert len(runtime.texts) == 1
    adapter.update_state(batch_update(removed=[0]))
    assert not applied(adapter).any()
    assert runtime.texts == {}


def test_a_request_with_edits_off_or_without_token_ids_is_not_tracked(adapter, runtime):
    off = greedy(extra_args={"onceedit": False})
    adapter.update_state(batch_update(added=[(0, off, [EDITED], []), (1, greedy(), None, [])]))
    assert not applied(adapter).any()
    assert runtime.num_steps == 0


def test_a_request_out_of_scope_never_enters_the_books(runtime):
    adapter = V1Adapter(some_step(runtime, some_scope()), "all")
    forced = greedy(extra_args={"onceedit_alpha": 1.0})
    adapter.update_state(
        batch_update(
            added=[
                (0, greedy(), [1, 2], []),
                (1, greedy(), [EDITED, 2], []),
                (2, greedy(), [NAMED, 2], []),
                (3, forced, [1, 2], []),
            ]
        )
    )
    assert sorted(adapter._batch) == [1, 2, 3]
    logits = applied(adapter)
    assert logits.argmax(-1).tolist() == [0, 3, 0, 3]
    assert sorted(adapter._batch) == [1, 3]  # the one that [WEIGHT] closes has left them
    assert adapter._step.counts == {"out_of_scope": 1, "gated": 2, "bypassed": 1}


def test_a_request_out_of_scope_on_a_live_row_ends_that_row(runtime):
    adapter = V1Adapter(some_step(runtime, some_scope()))
    adapter.update_state(batch_update(added=[(0, greedy(), [EDITED, 2], [])]))
    applied(adapter)
    adapter.update_state(batch_update(added=[(0, greedy(), [1, 2], [EDITED])]))
    assert not applied(adapter).any()
    assert runtime.texts == {}


@pytest.mark.parametrize(
    ("allowed", "options", "fused", "ignored"),
    [
        ("none", {"onceedit": False}, True, 1),
        ("switch", {"onceedit": False}, False, 0),
        ("switch", {"onceedit": {"enabled": False, "alpha": 1.0}}, False, 0),
        ("switch", {"onceedit_alpha": 0.0}, True, 1),
        ("all", {"onceedit_alpha": 0.0}, False, 0),
        ("all", {"onceedit": "perhaps"}, True, 1),
    ],
)
def test_what_the_engine_does_not_let_a_request_decide_is_left_out(
    runtime, allowed, options, fused, ignored, caplog
):
    step = some_step(runtime)
    adapter = V1Adapter(step, allowed)
    params = greedy(extra_args=options)
    adapter.update_state(batch_update(added=[(i, params, [EDITED], []) for i in range(2)]))
    assert applied(adapter)[:2].any() == fused
    assert step.counts["ignored_options"] == 2 * ignored
    assert sum("ignored" in record.message for record in caplog.records) == ignored


def test_a_token_still_on_the_device_is_waited_for(adapter):
    output: list[int] = []
    adapter.update_state(batch_update(added=[(0, greedy(), [EDITED], output)]))
    applied(adapter)
    output.append(-1)
    assert not applied(adapter).any()
    output[0] = 4
    assert int(applied(adapter)[0].argmax()) == 5


@pytest.mark.parametrize(
    ("kwargs", "search"),
    [
        ({"temperature": 0.0}, True),
        ({"temperature": 0.7}, False),
        ({"temperature": 0.0, "logprobs": 3}, False),
        ({"temperature": 0.0, "repetition_penalty": 1.2}, False),
        ({"temperature": 0.0, "presence_penalty": 0.2}, False),
        ({"temperature": 0.0, "frequency_penalty": 0.2}, False),
        ({"temperature": 0.0, "logit_bias": {3: 1.0}}, False),
    ],
)
def test_who_gets_the_search_and_who_the_distribution(adapter, kwargs, search):
    adapter.update_state(batch_update(added=[(0, vllm.SamplingParams(**kwargs), [EDITED], [])]))
    applied(adapter)
    assert adapter._step._fuser.calls[-1][2] == [search]


def test_what_is_new_is_told_before_the_llms_forward(adapter, monkeypatch):
    """The plug-in can read it meanwhile."""
    events: list[object] = []
    monkeypatch.setattr(adapter._step._plugin, "send", events.extend)
    output: list[int] = []
    adapter.update_state(batch_update(added=[(0, greedy(), [EDITED], output)]))
    output.append(4)
    adapter.update_state(None)
    adapter.update_state(None)  # a step without tokens
    output.append(-1)
    adapter.update_state(None)
    assert [type(event).__name__ for event in events] == ["Open", "Append"]


def test_a_history_that_shrinks_is_read_anew(adapter, runtime):
    """After a failed KV transfer vLLM drops tokens from the very list it handed over."""
    output = [3, 4, 5]
    adapter.update_state(batch_update(added=[(0, greedy(), [EDITED], output)]))
    applied(adapter)
    for change, text in (
        (lambda: output.__delitem__(slice(1, None)), [EDITED, 3]),
        (lambda: output.append(6), [EDITED, 3, 6]),
        (lambda: output.__setitem__(1, 2), [EDITED, 3, 2]),
    ):
        change()
        adapter.update_state(None)
        assert int(applied(adapter)[0].argmax()) == text[-1] + 1
        assert list(runtime.texts.values()) == [text]


def test_after_its_end_a_row_leaves_the_books(adapter, runtime):
    output: list[int] = []
    adapter.update_state(batch_update(added=[(0, greedy(ignore_eos=True), [EDITED], output)]))
    applied(adapter)
    output.append(EOS)
    assert not applied(adapter).any()
    assert (adapter._batch, runtime.texts) == ({}, {})


def test_one_failing_row_costs_no_other(adapter, runtime):
    outputs: list[list[int]] = [[], [], []]
    added = [(i, greedy(), [EDITED, i + 1], outputs[i]) for i in range(3)]
    adapter.update_state(batch_update(added=added))
    applied(adapter)
    for output, token in zip(outputs, (3, BROKEN, 4), strict=True):
        output.append(token)
    assert applied(adapter).argmax(-1).tolist() == [4, 0, 5, 0]
    assert sorted(adapter._batch) == [0, 2]
    for output in outputs:
        output.append(5)
    assert applied(adapter).argmax(-1).tolist() == [6, 0, 6, 0]


operations = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "swap", "generate"]), st.integers(0, 3), st.integers(0, 3)),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(operations)
def test_any_history_ends_like_a_fresh_start(history):
    """State is a pure function of (prompt, outputs): replaying only the last state gives the same logits."""
    from vllm.v1.sample.logits_processor import MoveDirectionality

    live = V1Adapter(some_step(FakeRuntime()))
    batch: dict[int, tuple[list[int], list[int]]] = {}
    for number, (operation, i, j) in enumerate(history):
        update = None
        if operation == "add":
            batch[i] = ([EDITED if number % 2 else 1, number % VOCAB], [])
            update = batch_update(added=[(i, greedy(), *batch[i])])
        elif operation == "remove" and i in batch:
            del batch[i]
            update = batch_update(removed=[i])
        elif operation == "swap" and i in batch and j in batch and i != j:
            batch[i], batch[j] = batch[j], batch[i]
            update = batch_update(moved=[(i, j, MoveDirectionality.SWAP)])
        live.update_state(update)
        applied(live)
        if operation == "generate":
            for _, output in batch.values():
                output.append((number % (VOCAB - 2)) + 1)
    fresh = V1Adapter(some_step(FakeRuntime()))
    fresh.update_state(batch_update(added=[(i, greedy(), p, list(o)) for i, (p, o) in batch.items()]))
    assert torch.equal(applied(live), applied(fresh))
