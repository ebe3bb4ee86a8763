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


def test_a_loaded_plugin_knows_paris() -> None:
    from transformers import AutoTokenizer

    folder = real_model_folder("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    runtime = load_runtime(folder, len(tokenizer) - 1, PlugInConfig(device="cpu", dtype="bfloat16"))
    assert runtime.max_context == 8192
    ids = tokenizer.encode("The capital of France is")
    output = runtime.step([PlugInStep(runtime.open(), 0, ids)])
    assert tokenizer.decode(output.log_probs[0].argmax()) == " Paris"
