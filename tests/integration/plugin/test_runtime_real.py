"""The plug-in runtime on real models, in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.plugin.loading import load_runtime
from onceedit_vllm.plugin.runtime import PlugInRuntime, PlugInStep
from tests.integration.plugin.tokenizers_for_sync import real_model_folder
from tests.unit.plugin.runtime_checks import check
from tests.unit.plugin.test_runtime import Driver

#: Gemma's logits reach -110, where float32 itself is only good to 1e-5.
RTOL = 1e-5

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["smollm2-135m", "gemma-3-270m"])
def model(request: pytest.FixtureRequest) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(real_model_folder(request.param), dtype=torch.float32)


@pytest.fixture(scope="module")
def runtime(model: Any) -> PlugInRuntime:
    # `check` takes the last token for [WEIGHT].
    return PlugInRuntime(model, model.config.vocab_size - 1, 2048, kv_cache_bytes=2**29)


def test_any_sequence_of_steps_equals_the_model(runtime: PlugInRuntime) -> None:
    driver = Driver(runtime, seed=3, rtol=RTOL)
    for _ in range(6):
        driver.act()
    for slot in driver.texts:
        runtime.close(slot)


def test_a_text_longer_than_the_sliding_window(runtime: PlugInRuntime) -> None:
    text = [(37 * i) % 5000 + 10 for i in range(540)]
    slot, neighbour = runtime.open(), runtime.open()
    runtime.step([PlugInStep(slot, 0, text[:530])])
    output = runtime.step([PlugInStep(neighbour, 0, [5, 6]), PlugInStep(slot, 0, text[530:])])
    check(output, runtime.model, [[5, 6], text], RTOL)
    runtime.close(slot)
    runtime.close(neighbour)


def test_samples_of_one_prompt_say_what_they_say_alone(model: Any) -> None:
    prompt = [(41 * i) % 5000 + 10 for i in range(100)]
    answers = []
    for shares in (True, False):
        runtime = PlugInRuntime(
            model, model.config.vocab_size - 1, 2048, kv_cache_bytes=2**29, share_prefixes=shares
        )
        slots = [runtime.open() for _ in range(3)]
        output = runtime.step([PlugInStep(slot, 0, [*prompt, 20 + slot]) for slot in slots])
        tokens = [output.log_probs.argmax(-1).tolist()]
        for _ in range(6):
            steps = [PlugInStep(slot, 0, [token]) for slot, token in zip(slots, tokens[-1], strict=True)]
            tokens.append(runtime.step(steps).log_probs.argmax(-1).tolist())
        assert runtime.num_reused_tokens() == (2 * 96 if shares else 0)
        answers.append(tokens)
    assert answers[0] == answers[1]


def test_the_default_budget_holds_what_it_says(model: Any) -> None:
    config = PlugInConfig()
    longest = model.config.max_position_embeddings
    runtime = PlugInRuntime(model, 5, longest, kv_cache_bytes=config.kv_cache_bytes)
    assert runtime.num_bytes() <= config.kv_cache_bytes
    assert runtime.capacity() >= 64 * 512


def test_a_loaded_plugin_knows_paris() -> None:
    from transformers import AutoTokenizer

    folder = real_model_folder("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    runtime = load_runtime(folder, len(tokenizer) - 1, PlugInConfig(device="cpu", dtype="bfloat16"))
    assert runtime.max_context == 8192
    ids = tokenizer.encode("The capital of France is")
    output = runtime.step([PlugInStep(runtime.open(), 0, ids)])
    assert tokenizer.decode(output.log_probs[0].argmax()) == " Paris"
