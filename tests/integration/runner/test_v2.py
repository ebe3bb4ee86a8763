"""The V2 adapter against stand-ins shaped like vLLM's slot state and step context."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from onceedit_vllm.runner.gate import Gate
from onceedit_vllm.runner.step import FusionStep
from onceedit_vllm.runner.v2 import V2Adapter
from tests.unit.runner.fakes import EDITED, VOCAB, FakeFuser, FakeHost, FakeSync

pytestmark = pytest.mark.integration

vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
GREEDY = vllm.SamplingParams(temperature=0.0)


class Slots:
    """Four request slots, filled as the V2 runner fills them."""

    def __init__(self) -> None:
        self.host = FakeHost()
        self.states = SimpleNamespace(
            all_token_ids=SimpleNamespace(gpu=torch.zeros(4, 32, dtype=torch.int32)),
            prompt_len=SimpleNamespace(np=np.zeros(4, dtype=np.int32)),
            prefill_len=SimpleNamespace(np=np.zeros(4, dtype=np.int32)),
        )
        self.total = [0] * 4
        self.step = FusionStep(self.host, FakeSync(), FakeFuser(), Gate(0.5))
        self.adapter = V2Adapter(self.step, self.states)

    def add(self, slot, prompt, outputs=(), params=GREEDY):
        tokens = [*prompt, *outputs]
        self.states.prompt_len.np[slot] = len(prompt)
        self.states.prefill_len.np[slot] = len(tokens)
        accepted = self.adapter.add_request(slot, params)
        self.states.all_token_ids.gpu[slot, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)
        self.total[slot] = len(tokens)
        return accepted

    def generate(self, slot, token):
        self.states.all_token_ids.gpu[slot, self.total[slot]] = token
        self.total[slot] += 1

    def apply(self, *slots, lengths=None):
        ctx = SimpleNamespace(
            idx_mapping_np=np.array(slots, dtype=np.int32),
            seq_lens_upper_bound_np=np.array(lengths or [self.total[s] for s in slots], dtype=np.int32),
        )
        return self.adapter.apply(torch.zeros(len(slots), VOCAB), ctx)


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
    assert slots.host.num_steps == 0
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
    assert slots.host.texts == {}


def test_opted_out_requests_are_declined(slots):
    assert slots.add(1, [EDITED], params=vllm.SamplingParams(extra_args={"onceedit": 0})) is False
    assert slots.add(2, [EDITED], params=vllm.SamplingParams(temperature=0.9)) is True
    slots.apply(1)
    assert slots.host.num_steps == 0


@pytest.mark.parametrize(
    "params", [vllm.SamplingParams.for_sampler_warmup(), GREEDY], ids=["sampler warm-up", "plain greedy"]
)
def test_nothing_that_comes_while_the_engine_warms_up_meets_the_plugin(slots, params):
    """0.33 profiles with requests in all slots, and warms up speculation with plain greedy ones."""

    def compile_or_warm_up_model():
        assert [slots.add(slot, [EDITED], params=params) for slot in range(4)] == [False] * 4
        assert not slots.apply(0, 1, 2, 3).any()

    compile_or_warm_up_model()
    assert slots.host.num_steps == 0
    assert not slots.step.counts
    assert slots.add(0, [EDITED], params=params) is True


@pytest.mark.parametrize(("allowed", "fused"), [("switch", False), ("all", True)])
def test_a_forced_weight_is_left_out_where_the_engine_does_not_let_it(slots, allowed, fused):
    """A front end that does not validate must not be a way around the setting."""
    slots.adapter = V2Adapter(slots.step, slots.states, allowed)
    slots.add(0, [1, 2], params=vllm.SamplingParams(extra_args={"onceedit_alpha": 1.0}))
    assert slots.apply(0).any() == fused
    assert slots.step.counts["ignored_options"] == (not fused)


def test_the_names_this_room_leans_on_are_still_there():
    """Public or not, these are read by name; this notices when vLLM moves them."""
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

    assert {"idx_mapping_np", "seq_lens_upper_bound_np"} <= set(LogitsContext.__dataclass_fields__)
    assert {"all_token_ids", "prompt_len", "prefill_len"} <= set(LogitsProcRequestState.__dataclass_fields__)
