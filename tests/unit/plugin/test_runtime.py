"""Reading in parts gives what reading at once gives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.errors import BadInputError, KVCacheFullError
from onceedit_vllm.plugin import runtime as runtime_module
from onceedit_vllm.plugin.runtime import PlugInOutput, PlugInRuntime, PlugInStep
from onceedit_vllm.testing import toy_causal_lm
from tests.unit.plugin.runtime_checks import check

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
    return PlugInRuntime(toy(kind), VOCAB - 1, 400, **{"kv_cache_bytes": 2**23, **options})


def bytes_of(num_tokens: int) -> int:
    """Of the toy llama's keys and values."""
    runtime = make()
    return num_tokens * (runtime.num_bytes() // runtime.capacity())


def read(runtime: PlugInRuntime, *texts: list[int]) -> PlugInOutput:
    return runtime.step([PlugInStep(runtime.open(), 0, text) for text in texts])


def text_of(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(VOCAB - 1), k=length)


class Driver:
    """Random opens, steps, rollbacks and closes, every output checked against the model alone.

    Args:
        runtime: What is driven.
        seed: Of the choices.
        rtol: Relative tolerance of the outputs.
        common: What many texts begin with.
    """

    def __init__(
        self, runtime: PlugInRuntime, seed: int, rtol: float = 0.0, common: Sequence[int] = ()
    ) -> None:
        self.runtime, self.random, self.rtol, self.common = runtime, random.Random(seed), rtol, common
        self.texts: dict[int, list[int]] = {}

    def act(self) -> None:
        if not self.texts or (len(self.texts) < 5 and self.random.random() < 0.5):
            self.texts[self.runtime.open()] = []
        if self.random.random() < 0.1:
            self.close(self.random.choice(list(self.texts)))
        steps = [self.step(slot) for slot in self.texts if self.random.random() < 0.7]
        while steps:
            try:
                output = self.runtime.step(steps)
            except KVCacheFullError as error:
                self.close(error.slot)
                steps = [step for step in steps if step.slot != error.slot]
                continue
            for step in steps:
                text = self.texts[step.slot]
                self.texts[step.slot] = [*text[: len(text) - step.rollback], *step.token_ids]
            texts = [self.texts[step.slot] for step in steps]
            check(output, self.runtime.model, texts, self.rtol)
            return

    def close(self, slot: int) -> None:
        self.runtime.close(slot)
        del self.texts[slot]

    def step(self, slot: int) -> PlugInStep:
        text = self.texts[slot]
        if not text and self.common:
            start = list(self.common[: self.random.randrange(len(self.common))])
            return PlugInStep(slot, 0, [*start, self.random.randrange(VOCAB - 1)])
        most = self.random.choice([4, 4, 4, 40]) if self.common else 4
        rollback = self.random.randint(0, min(most, len(text)))
        size = self.random.choice([1, 1, 1, 2, 3, 8, 30])
        return PlugInStep(slot, rollback, [self.random.randrange(VOCAB - 1) for _ in range(size)])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_sequence_of_steps_equals_the_model(kind: str, seed: int) -> None:
    driver = Driver(make(kind), seed, common=text_of(seed, 60) if seed % 2 else ())
    for _ in range(8):
        driver.act()


@pytest.mark.parametrize("kind", ["llama", "gemma3-mixed"])
def test_long_texts_are_read_in_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "_MAX_PART", 16)
    monkeypatch.setattr(runtime_module, "_MAX_BATCH_TOKENS", 32)
    driver = Driver(make(kind), seed=5, common=text_of(3, 60))
    for _ in range(12):
        driver.act()


def test_texts_are_parted_where_padding_would_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make()
    sizes: list[tuple[int, ...]] = []
    forward = runtime.model.forward

    def noting(**inputs: Any) -> Any:
        sizes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(runtime.model, "forward", noting)
    lengths = [1, 100, 1, 3, 90, 1, 4, 70]
    read(runtime, *(text_of(i, length) for i, length in enumerate(lengths)))
    assert sorted(sizes) == [(1, 70), (2, 100), (5, 4)]


def test_the_pool_neither_grows_nor_shrinks() -> None:
    runtime = make()
    before = runtime.num_bytes()
    assert before <= 2**23
    read(runtime, text_of(0, 300), *(text_of(i, 4) for i in range(30)))
    assert runtime.num_bytes() == before


def test_a_budget_for_less_than_one_text() -> None:
    needed = bytes_of(400)
    assert make(kv_cache_bytes=needed).capacity() == 400
    with pytest.raises(BadInputError, match=f"one text of 400 tokens takes {needed:,} bytes"):
        make(kv_cache_bytes=needed - 1)


def test_a_step_without_room_changes_nothing() -> None:
    runtime = make(kv_cache_bytes=bytes_of(400))
    long, short = runtime.open(), runtime.open()
    runtime.step([PlugInStep(long, 0, text_of(1, 300)), PlugInStep(short, 0, text_of(2, 10))])
    newcomer = runtime.open()
    steps = [PlugInStep(short, 4, [5]), PlugInStep(newcomer, 0, text_of(3, 100)), PlugInStep(long, 9, [6])]
    with pytest.raises(KVCacheFullError, match=f"slot {newcomer}.* no room for 100 more") as caught:
        runtime.step(steps)
    assert caught.value.slot == newcomer
    assert [runtime.length(slot) for slot in (long, short, newcomer)] == [300, 10, 0]
    output = runtime.step([step for step in steps if step.slot != newcomer])
    check(output, runtime.model, [[*text_of(2, 10)[:6], 5], [*text_of(1, 300)[:291], 6]])
    runtime.close(long)
    check(runtime.step([steps[1]]), runtime.model, [text_of(3, 100)])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_full_cache_is_survived_and_leaks_nothing(seed: int) -> None:
    driver = Driver(make(kv_cache_bytes=bytes_of(400)), seed, common=text_of(7, 200))
    for _ in range(12):
        driver.act()
    for slot in driver.texts:
        driver.runtime.close(slot)
    assert driver.runtime.num_free_tokens() == driver.runtime.capacity() == 400


def test_samples_of_one_prompt_read_it_once() -> None:
    runtime = make()
    prompt = text_of(1, 100)
    check(read(runtime, *[prompt] * 5), runtime.model, [prompt] * 5)
    # Six blocks are shared; the last four tokens are read by each.
    assert (runtime.num_read_tokens, runtime.num_reused_tokens()) == (100 + 4 * 4, 4 * 96)
    check(read(runtime, [*prompt[:50], 7]), runtime.model, [[*prompt[:50], 7]])
    assert runtime.num_reused_tokens() == 4 * 96 + 48


def test_the_last_token_is_always_read() -> None:
    runtime = make()
    prompt = text_of(1, 64)
    for _ in range(2):
        check(read(runtime, prompt), runtime.model, [prompt])
    assert runtime.num_reused_tokens() == 48


def test_what_closed_texts_read_is_known_until_there_is_no_room() -> None:
    runtime = make(kv_cache_bytes=bytes_of(400))
    for seed in (1, 2):
        slot = runtime.open()
        runtime.step([PlugInStep(slot, 0, text_of(seed, 161))])
        runtime.close(slot)
    assert runtime.num_free_tokens() == 400
    slot = runtime.open()
    runtime.step([PlugInStep(slot, 0, text_of(3, 161))])  # takes the room of the oldest
    check(read(runtime, text_of(2, 161)), runtime.model, [text_of(2, 161)])
    assert runtime.num_reused_tokens() == 160
    runtime.close(slot)
    read(runtime, text_of(1, 161))
    assert runtime.num_reused_tokens() < 2 * 160


def test_rolling_back_into_a_shared_block_leaves_the_others_alone() -> None:
    runtime = make()
    prompt = text_of(1, 80)
    slots = [runtime.open() for _ in range(3)]
    runtime.step([PlugInStep(slot, 0, prompt) for slot in slots])
    steps = [PlugInStep(slots[0], 23, [3, 4]), PlugInStep(slots[1], 20, [5]), PlugInStep(slots[2], 0, [6])]
    texts = [[*prompt[:57], 3, 4], [*prompt[:60], 5], [*prompt, 6]]
    check(runtime.step(steps), runtime.model, texts)
    check(read(runtime, prompt), runtime.model, [prompt])


@pytest.mark.parametrize("kind", KINDS)
def test_sharing_says_what_reading_alone_says(kind: str) -> None:
    common, greedy = text_of(9, 70), []
    for shares in (True, False):
        runtime = make(kind, share_prefixes=shares)
        slots = [runtime.open() for _ in range(4)]
        output = runtime.step([PlugInStep(slot, 0, [*common, 5 + slot]) for slot in slots])
        tokens = [output.log_probs.argmax(-1).tolist()]
        for _ in range(20):
            steps = [PlugInStep(slot, 0, [token]) for slot, token in zip(slots, tokens[-1], strict=True)]
            tokens.append(runtime.step(steps).log_probs.argmax(-1).tolist())
        greedy.append(tokens)
        assert (runtime.num_reused_tokens() > 0) is shares
    assert greedy[0] == greedy[1]


def test_at_equal_shapes_sharing_changes_no_bit() -> None:
    outputs = []
    for shares in (True, False):
        runtime = make(share_prefixes=shares)
        first, second = text_of(1, 65), text_of(1, 64)
        read(runtime, first)
        slot = runtime.open()
        if not shares:  # the same passes: the prefix alone, then one batch of the rest
            runtime.step([PlugInStep(slot, 0, first)])
            runtime.step([PlugInStep(slot, 17, second[48:])])
        else:
            runtime.step([PlugInStep(slot, 0, second)])
        outputs.append(runtime.step([PlugInStep(slot, 0, [9])]).log_probs)
    assert torch.equal(*outputs)


def test_a_failed_step_leaves_its_slots_empty_and_nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = make()
    slot, other = runtime.open(), runtime.open()
    runtime.step([PlugInStep(slot, 0, [5, 6]), PlugInStep(other, 0, [7])])

    def broken(**_: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(runtime.model, "forward", broken)
        with pytest.raises(RuntimeError, match="out of memory"):
            runtime.step([PlugInStep(slot, 0, text_of(1, 50))])
    assert (runtime.length(slot), runtime.length(other)) == (0, 1)
    check(runtime.step([PlugInStep(slot, 0, text_of(1, 50))]), runtime.model, [text_of(1, 50)])
    assert runtime.num_reused_tokens() == 0


def test_keys_and_values_of_different_widths() -> None:
    from transformers import AutoModelForCausalLM, DeepseekV3Config

    config = DeepseekV3Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16,
        v_head_dim=12, first_k_dense_replace=2, n_routed_experts=2, num_experts_per_tok=1, n_group=1,
        topk_group=1, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    runtime = PlugInRuntime(model, VOCAB - 1, 400, kv_cache_bytes=2**22)
    token_bytes = 2 * (16 + 8) * 4  # layers, what all heads share and the rotated part, float32
    assert runtime.capacity() == 2**22 // (16 * token_bytes) * 16
    driver = Driver(runtime, seed=2)
    for _ in range(6):
        driver.act()


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
