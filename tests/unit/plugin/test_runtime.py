"""Reading in parts gives what reading at once gives."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.plugin import runtime as runtime_module
from onceedit_vllm.plugin.host import PlugInStep
from onceedit_vllm.plugin.runtime import PlugInRuntime
from onceedit_vllm.testing import toy_causal_lm
from tests.unit.plugin.host_contract import check

VOCAB = 120
KINDS = ("llama", "gpt2", "gemma3", "gemma3-mixed", "qwen2", "mistral", "bloom", "gemma2")


@cache
def toy(kind: str) -> Any:
    """A tiny model; sliding windows are far shorter than the texts."""
    from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, Gemma3TextConfig, MistralConfig

    if kind in ("llama", "gpt2", "gemma3", "qwen2"):
        return toy_causal_lm(VOCAB, kind=kind)  # type: ignore[arg-type]
    size: dict[str, Any] = {
        "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 3, "pad_token_id": 0,
    }  # fmt: skip
    mixed: dict[str, Any] = {
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 7,
    }
    configs = {
        "gemma3-mixed": lambda: Gemma3TextConfig(**size, **mixed),
        "gemma2": lambda: Gemma2Config(**size, **mixed, final_logit_softcapping=3.0),
        "mistral": lambda: MistralConfig(**size, sliding_window=9),
        "bloom": lambda: BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(configs[kind]())
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(5.0)
    return model.eval()


def make(kind: str = "llama", **options: Any) -> PlugInRuntime:
    return PlugInRuntime(toy(kind), VOCAB - 1, 400, **options)


class Driver:
    """Random opens, steps, rollbacks and closes, every output checked against the model alone."""

    def __init__(self, runtime: PlugInRuntime, seed: int, rtol: float = 0.0) -> None:
        self.runtime, self.random, self.rtol = runtime, random.Random(seed), rtol
        self.texts: dict[int, list[int]] = {}

    def act(self) -> None:
        if not self.texts or (len(self.texts) < 5 and self.random.random() < 0.5):
            self.texts[self.runtime.open()] = []
        if self.random.random() < 0.1:
            slot = self.random.choice(list(self.texts))
            self.runtime.close(slot)
            del self.texts[slot]
        steps = [self.step(slot) for slot in self.texts if self.random.random() < 0.7]
        if steps:
            texts = [self.texts[step.slot] for step in steps]
            check(self.runtime.step(steps), self.runtime.model, texts, self.rtol)

    def step(self, slot: int) -> PlugInStep:
        rollback = self.random.randint(0, min(4, len(self.texts[slot])))
        size = self.random.choice([1, 1, 1, 2, 3, 8, 30])
        new_ids = [self.random.randrange(VOCAB - 1) for _ in range(size)]
        kept = self.texts[slot][: len(self.texts[slot]) - rollback]
        self.texts[slot] = [*kept, *new_ids]
        return PlugInStep(slot, rollback, new_ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_sequence_of_steps_equals_the_model(kind: str, seed: int) -> None:
    driver = Driver(make(kind), seed)
    for _ in range(8):
        driver.act()


@pytest.mark.parametrize("kind", ["llama", "gemma3-mixed"])
def test_long_texts_are_read_in_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "_MAX_PART", 16)
    monkeypatch.setattr(runtime_module, "_MAX_BATCH_TOKENS", 32)
    driver = Driver(make(kind), seed=5)
    for _ in range(12):
        driver.act()


def test_padding_stays_below_the_tokens_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make()
    sizes: list[tuple[int, ...]] = []
    forward = runtime.model.forward

    def noting(**inputs: Any) -> Any:
        sizes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(runtime.model, "forward", noting)
    lengths = [1, 100, 1, 3, 90, 1, 4, 70]
    runtime.step([PlugInStep(runtime.open(), 0, [7] * length) for length in lengths])
    assert sorted(sizes) == [(2, 4), (3, 1), (3, 100)]


def test_memory_follows_the_texts_not_the_longest_one() -> None:
    runtime = make()
    runtime.step([PlugInStep(runtime.open(), 0, [7] * 300)])
    one = runtime.num_bytes()
    slots = [runtime.open() for _ in range(30)]
    runtime.step([PlugInStep(slot, 0, [7] * 4) for slot in slots])
    assert runtime.num_bytes() <= 4 * one


def test_a_recycled_pool_does_not_grow() -> None:
    runtime = make()
    held = set()
    for _ in range(20):
        slot = runtime.open()
        runtime.step([PlugInStep(slot, 0, [7] * 50)])
        runtime.close(slot)
        held.add(runtime.num_bytes())
    assert len(held) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_numbers_do_not_raise_and_stay_in_their_row(value: float) -> None:
    runtime = make()
    healthy, broken = runtime.open(), runtime.open()
    with torch.no_grad():
        embeddings = runtime.model.get_input_embeddings().weight
        kept = embeddings[50].clone()
        try:
            embeddings[50] = value
            output = runtime.step([PlugInStep(broken, 0, [50, 51]), PlugInStep(healthy, 0, [5, 6, 7])])
            after = runtime.step([PlugInStep(healthy, 0, [8]), PlugInStep(broken, 0, [52])])
        finally:
            embeddings[50] = kept
    assert output.log_probs[0].isnan().any()
    assert not output.log_probs[1].isnan().any()
    assert after.log_probs[0].isfinite().any()


def test_global_state_is_left_alone() -> None:
    runtime = make()
    before = torch.random.get_rng_state(), torch.get_num_threads(), torch.is_inference_mode_enabled()
    output = runtime.step([PlugInStep(runtime.open(), 0, [5, 6])])
    after = torch.random.get_rng_state(), torch.get_num_threads(), torch.is_inference_mode_enabled()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert not output.log_probs.is_inference()
    assert not output.log_probs.requires_grad


def test_works_inside_inference_mode() -> None:
    runtime = make()
    with torch.inference_mode():
        slot = runtime.open()
        runtime.step([PlugInStep(slot, 0, [5, 6])])
        output = runtime.step([PlugInStep(slot, 1, [9])])
    check(output, runtime.model, [[5, 9]])


def test_length() -> None:
    runtime = make()
    slot = runtime.open()
    runtime.step([PlugInStep(slot, 0, [5, 6, 7])])
    runtime.step([PlugInStep(slot, 2, [8])])
    assert runtime.length(slot) == 2
