"""The V2 adapter against vLLM's own slot state and a stand-in for its step context."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from onceedit_vllm.runner.v1 import V1Adapter
from onceedit_vllm.runner.v2 import V2Adapter, staged_prompt
from tests.unit.plugin.fakes import BROKEN, EDITED, EOS, VOCAB, FakeRuntime
from tests.unit.runner.fakes import NAMED, some_scope, some_step

pytestmark = pytest.mark.integration

vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
GREEDY = vllm.SamplingParams(temperature=0.0)


class Slots:
    """Four request slots, kept in vLLM's own classes and filled as the V2 runner fills them."""

    def __init__(self, scope=None, allowed="switch") -> None:
        from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcRequestState
        from vllm.v1.worker.gpu.states import RequestState

        self.runtime = FakeRuntime()
        self.requests = RequestState(4, 32, 64, 0, VOCAB, torch.device("cpu"))
        self.states = LogitsProcRequestState.from_request_state(self.requests)
        self.total = [0] * 4
        self.step = some_step(self.runtime, scope)
        self.adapter = V2Adapter(self.step, self.states, allowed)

    def add(self, slot, prompt, outputs=(), params=GREEDY):
        accepted = self.stage(slot, prompt, outputs, params)
        self.flush()
        return accepted

    def stage(self, slot, prompt, outputs=(), params=GREEDY, hidden=None):
        """A request enters; its tokens are not on the device yet. One of vLLM's names may be gone."""
        tokens = [*prompt, *outputs]
        self.requests.remove_request(str(slot))
        self.requests.free_indices.remove(slot)
        self.requests.free_indices.append(slot)  # vLLM takes the last
        self.requests.add_request(str(slot), len(prompt), tokens, 0, 16)
        self.total[slot] = len(tokens)
        staged = vars(self.states.all_token_ids)
        kept = {name: staged.pop(name) for name in (hidden,) if name}
        accepted = self.adapter.add_request(slot, params)
        staged.update(kept)
        return accepted

    def flush(self):
        """What `apply_staged_writes` does; its kernel needs a GPU."""
        staged, begin = self.states.all_token_ids, 0
        for slot, start, end in zip(
            staged._staged_write_indices,
            staged._staged_write_starts,
            staged._staged_write_cu_lens,
            strict=True,
        ):
            tokens = torch.tensor(staged._staged_write_contents[begin:end], dtype=torch.int32)
            staged.gpu[slot, start : start + len(tokens)] = tokens
            begin = end
        staged.clear_staged_writes()

    def generate(self, slot, token):
        self.states.all_token_ids.gpu[slot, self.total[slot]] = token
        self.total[slot] += 1

    def apply(self, *slots, lengths=None, logits=None):
        ctx = SimpleNamespace(
            idx_mapping_np=np.array(slots, dtype=np.int32),
            seq_lens_upper_bound_np=np.array(lengths or [self.total[s] for s in slots], dtype=np.int32),
        )
        logits = torch.zeros(len(slots), VOCAB) if logits is None else logits
        self.adapter.begin_step()
        return self.adapter.apply(logits, ctx)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _ordinary_memory(monkeypatch):
    """Pinned memory, as vLLM would take it, needs an accelerator."""
    monkeypatch.setattr("vllm.v1.worker.gpu.buffer_utils.is_uva_available", lambda: False)


@pytest.fixture
def slots():
    return Slots()


def test_rows_are_found_through_the_mapping_which_changes_every_step(slots):
    slots.add(2, [EDITED, 3])
    slots.add(0, [1, 2])
    assert slots.apply(0, 2).argmax(-1).tolist() == [0, 4]
    slots.generate(2, 5)
    slots.generate(0, 5)
    logits = slots.apply(2, 0)
    assert int(logits[0].argmax()) == 6
    assert not logits[1].any()


def test_rows_in_the_middle_of_a_prompt_are_skipped(slots):
    slots.add(1, [EDITED, 2, 3, 4])
    assert not slots.apply(1, lengths=[2]).any()
    assert slots.runtime.num_steps == 0
    assert int(slots.apply(1)[0].argmax()) == 5


def test_a_resumed_request_is_gated_on_its_prompt_alone(slots):
    # The output holds a token that would open the gate; only the prompt may.
    slots.add(1, [1, 2], outputs=[EDITED])
    assert not slots.apply(1).any()
    slots.add(3, [EDITED, 2], outputs=[5, 6])
    assert int(slots.apply(3)[0].argmax()) == 7


def test_a_recycled_slot_starts_afresh(slots):
    slots.add(1, [EDITED, 2])
    slots.apply(1)
    slots.add(1, [1, 2])
    assert not slots.apply(1).any()
    assert slots.runtime.texts == {}


def test_opted_out_requests_are_declined(slots):
    assert slots.add(1, [EDITED], params=vllm.SamplingParams(extra_args={"onceedit": 0})) is False
    assert slots.add(2, [EDITED], params=vllm.SamplingParams(temperature=0.9)) is True
    slots.apply(1)
    assert slots.runtime.num_steps == 0


@pytest.mark.parametrize(
    "params", [vllm.SamplingParams.for_sampler_warmup(), GREEDY], ids=["sampler warm-up", "plain greedy"]
)
def test_nothing_that_comes_while_the_engine_warms_up_meets_the_plugin(slots, params):
    """0.33 profiles with requests in all slots, and warms up speculation with plain greedy ones."""

    def compile_or_warm_up_model():
        assert [slots.add(slot, [EDITED], params=params) for slot in range(4)] == [False] * 4
        assert not slots.apply(0, 1, 2, 3).any()

    compile_or_warm_up_model()
    assert slots.runtime.num_steps == 0
    assert not slots.step.counts
    assert slots.add(0, [EDITED], params=params) is True


@pytest.mark.parametrize(("allowed", "fused"), [("switch", False), ("all", True)])
def test_a_forced_weight_is_left_out_where_the_engine_does_not_let_it(allowed, fused):
    """A front end that does not validate must not be a way around the setting."""
    slots = Slots(allowed=allowed)
    slots.add(0, [1, 2], params=vllm.SamplingParams(extra_args={"onceedit_alpha": 1.0}))
    assert slots.apply(0).any() == fused
    assert slots.step.counts["ignored_options"] == (not fused)


def test_a_request_out_of_scope_is_declined_at_admission():
    slots = Slots(some_scope(), "all")
    assert slots.add(0, [1, 2]) is False
    assert slots.add(1, [EDITED, 2]) is True
    assert slots.add(2, [NAMED, 2]) is True
    assert slots.add(3, [1, 2], params=vllm.SamplingParams(extra_args={"onceedit_alpha": 1.0})) is True
    assert slots.apply(0, 1, 2, 3).argmax(-1).tolist() == [0, 3, 0, 3]
    assert slots.step.counts == {"out_of_scope": 1, "gated": 2, "bypassed": 1}


def test_several_requests_of_one_step_are_told_apart():
    slots = Slots(some_scope())
    prompts = {2: [EDITED, 3], 0: [1, 2, 3], 3: [NAMED], 1: [4, 5]}
    assert {slot: slots.stage(slot, prompt) for slot, prompt in prompts.items()} == {
        2: True, 0: False, 3: True, 1: False
    }  # fmt: skip
    slots.flush()
    assert slots.apply(0, 1, 2, 3).argmax(-1).tolist() == [0, 0, 4, 0]


def test_the_scope_of_a_resumed_request_is_its_prompts():
    slots = Slots(some_scope())
    assert slots.add(0, [1, 2], outputs=[EDITED]) is False
    assert slots.add(1, [EDITED, 2], outputs=[5, 6]) is True
    assert int(slots.apply(1)[0].argmax()) == 7


@pytest.mark.parametrize("gone", ["_staged_write_indices", "_staged_write_contents"])
def test_where_a_staged_prompt_cannot_be_read_the_first_apply_decides(gone):
    slots = Slots(some_scope())
    assert slots.stage(0, [1, 2], hidden=gone) is True
    assert slots.stage(1, [EDITED, 2], hidden=gone) is True
    assert slots.stage(2, [1, 2], outputs=[EDITED], hidden=gone) is True
    slots.flush()
    assert slots.apply(0, 1, 2).argmax(-1).tolist() == [0, 3, 0]
    assert sorted(slots.adapter._slots) == [1]
    assert slots.step.counts == {"out_of_scope": 2, "gated": 1}


# What vLLM does not say here: that a request has ended.


def copies_of(slots, monkeypatch):
    """Counts the transfers of tokens to the host."""
    sizes: list[int] = []
    cat = torch.cat

    def counted(spans):
        sizes.append(len(spans))
        return cat(spans)

    monkeypatch.setattr(torch, "cat", counted)
    return sizes


def test_a_row_that_the_gate_has_closed_is_never_copied_again(slots, monkeypatch):
    slots.add(0, [1, 2])
    sizes = copies_of(slots, monkeypatch)
    for token in range(1, 6):
        slots.apply(0)
        slots.generate(0, token)
    assert sizes == [1]
    assert slots.adapter._slots == {}


@pytest.mark.parametrize("token", [EOS, BROKEN])
def test_a_row_that_ended_or_failed_leaves_the_books_at_once(slots, token, monkeypatch):
    slots.add(0, [EDITED])
    slots.add(1, [EDITED, 2])
    slots.apply(0, 1)
    slots.generate(0, token)
    slots.generate(1, 3)
    assert slots.apply(0, 1).argmax(-1).tolist() == [0, 4]
    assert list(slots.runtime.texts.values()) == [[EDITED, 2, 3]]
    sizes = copies_of(slots, monkeypatch)
    slots.generate(0, 4)
    slots.generate(1, 4)
    assert slots.apply(0, 1).argmax(-1).tolist() == [0, 5]
    assert sizes == [1]


def test_a_row_that_has_all_its_tokens_gives_back_what_it_holds(slots):
    slots.add(0, [EDITED], params=vllm.SamplingParams(temperature=0.0, max_tokens=2))
    slots.apply(0)
    slots.generate(0, 3)
    assert int(slots.apply(0)[0].argmax()) == 4
    assert (slots.adapter._slots, slots.runtime.texts) == ({}, {})


def test_a_row_unseen_for_long_gives_back_what_it_holds_and_can_come_again(slots):
    slots.add(0, [EDITED])
    slots.add(1, [EDITED, 2], params=vllm.SamplingParams(temperature=0.0, max_tokens=500))
    slots.apply(0, 1)
    slots.generate(0, 3)
    for _ in range(8):
        slots.apply(1)
    assert list(slots.runtime.texts.values()) == [[EDITED, 2]]
    assert int(slots.apply(0)[0].argmax()) == 4
    assert len(slots.runtime.texts) == 2


def test_rows_that_ended_are_let_go_of_also_where_no_other_needs_the_plugin(slots):
    slots.add(0, [EDITED])
    slots.apply(0)
    for _ in range(8):
        slots.adapter.begin_step()
    assert slots.runtime.texts == {}


@pytest.mark.parametrize(
    "penalties",
    [
        {"repetition_penalty": 1.4},
        {"presence_penalty": 0.7},
        {"frequency_penalty": 0.4},
        {"repetition_penalty": 0.8, "presence_penalty": -0.3, "frequency_penalty": 1.0},
    ],
    ids=str,
)
def test_both_runners_give_the_same_answer_under_penalties(penalties):
    """V1 lays them on the fused row, V2 on the LLM's: what is sampled from must be the same."""
    from vllm.model_executor.layers.utils import apply_penalties
    from vllm.v1.sample.logits_processor import BatchUpdate

    params = vllm.SamplingParams(temperature=0.0, logit_bias={3: 1.5}, **penalties)
    prompt, outputs, own = [EDITED, 2, 2], [4, 4, 5], torch.randn(1, VOCAB, generator=generator())

    def penalised(logits):
        names = ("presence_penalty", "frequency_penalty", "repetition_penalty")
        presence, frequency, repetition = (torch.tensor([getattr(params, name)]) for name in names)
        seen, generated = torch.tensor([prompt]), torch.tensor([outputs])
        return apply_penalties(logits, seen, generated, presence, frequency, repetition)

    biased = own.clone()
    biased[0, 3] += 1.5
    v1 = V1Adapter(some_step(FakeRuntime()))
    added = [(0, params, prompt, list(outputs))]
    v1.update_state(BatchUpdate(batch_size=1, removed=(), added=added, moved=()))
    expected = penalised(v1.apply(biased.clone()))
    slots = Slots()
    slots.add(0, prompt, outputs, params)
    found = slots.apply(0, logits=penalised(biased.clone()))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, penalised(biased.clone()), atol=1e-2)


def generator():
    return torch.Generator().manual_seed(0)


def test_the_names_this_room_leans_on_are_still_there():
    """Public or not, these are read by name; this notices when vLLM moves them."""
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

    assert {"idx_mapping_np", "seq_lens_upper_bound_np"} <= set(LogitsContext.__dataclass_fields__)
    assert {"all_token_ids", "prompt_len", "prefill_len"} <= set(LogitsProcRequestState.__dataclass_fields__)


def test_a_prompt_is_read_from_where_vllm_stages_it():
    """Fails when vLLM moves its staged writes: requests out of scope then cost a read of the device."""
    slots = Slots()
    slots.stage(3, [1, 2])
    slots.stage(1, [4, 5, 6], outputs=[7, 8])
    assert staged_prompt(slots.states, 1) == [4, 5, 6]
    assert staged_prompt(slots.states, 3) == []
    slots.flush()
    assert staged_prompt(slots.states, 1) == []
