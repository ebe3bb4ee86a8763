"""From a folder to a plug-in that runs, and what is refused on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import BadInputError, ModelError
from onceedit_vllm.plugin.loading import load_runtime
from onceedit_vllm.plugin.runtime import PlugInStep
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer, toy_causal_lm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_model(tmp_path_factory.mktemp("plug-in"), kind="llama", max_positions=256)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize(("asked", "given"), [(None, 256), (64, 64), (1000, 256)])
def test_max_context(folder: Path, asked: int | None, given: int) -> None:
    assert load_runtime(folder, 9, PlugInConfig(max_context=asked)).max_context == given


@pytest.mark.parametrize(("asked", "given"), [(None, 64), (64, 64)])
def test_texts_are_no_longer_than_the_memory_holds(folder: Path, asked: int | None, given: int) -> None:
    """Models of very long contexts are served with what the budget holds, unless more is asked for."""
    per_token = load_runtime(folder, 9, PlugInConfig(max_context=64, dtype="float32")).num_bytes()
    per_token //= load_runtime(folder, 9, PlugInConfig(max_context=64, dtype="float32")).capacity()
    config = PlugInConfig(max_context=asked, kv_cache_bytes=70 * per_token, dtype="float32")
    assert load_runtime(folder, 9, config).max_context == given
    with pytest.raises(BadInputError, match="one text of 128 tokens takes"):
        load_runtime(folder, 9, config.model_copy(update={"max_context": 128}))


@pytest.mark.parametrize(
    ("rope", "limit"),
    [
        ({"rope_type": "default", "rope_theta": 1e4}, 256),
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}, 256),
        (
            {
                "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64,
                "short_factor": [1.0] * 16, "long_factor": [2.0] * 16,
            },
            64,
        ),
    ],
)  # fmt: skip
def test_texts_end_where_rotary_frequencies_would_change(tmp_path: Path, rope: Any, limit: int) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer = toy_bpe_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=256, rope_parameters=rope,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_runtime(tmp_path, 9, PlugInConfig(device="cpu")).max_context == limit


def test_rows_without_a_token_have_no_probability(tmp_path: Path) -> None:
    tokenizer = toy_bpe_tokenizer()
    toy_causal_lm(len(tokenizer) + 16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    runtime = load_runtime(tmp_path, len(tokenizer) - 1, PlugInConfig(device="cpu"))
    log_probs = runtime.step([PlugInStep(runtime.open(), 0, [5, 6])]).log_probs[0]
    assert log_probs.shape == (len(tokenizer) + 16,)
    assert (log_probs[len(tokenizer) - 1 :] == -torch.inf).all()
    assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_bfloat16_gives_float32(folder: Path) -> None:
    runtime = load_runtime(folder, 9, PlugInConfig(device="cpu", dtype="bfloat16"))
    output = runtime.step([PlugInStep(runtime.open(), 0, [5, 6])])
    assert output.log_probs.dtype == output.weight_logits.dtype == torch.float32


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_runtime(tmp_path, 9, PlugInConfig(device="cpu"))


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_runtime(folder, 9, PlugInConfig(device="hexagon"))


def test_pickled_weights_are_not_read(folder: Path, model: Any, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no file named model\.safetensors"):
        load_runtime(tmp_path, 9, PlugInConfig(device="cpu"))


def test_code_of_a_model_is_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "planted", "auto_map": {"AutoConfig": "planted.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever is at the terminal is not asked
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_runtime(tmp_path, 9, PlugInConfig(device="cpu"))
    assert not (tmp_path / "ran").exists()


def test_a_model_that_forgets_its_cache_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward
    monkeypatch.setattr(
        LlamaForCausalLM, "forward", lambda self, past_key_values=None, **inputs: forward(self, **inputs)
    )
    with pytest.raises(ModelError, match="2 of its 2 layers do not keep"):
        load_runtime(folder, 9, PlugInConfig(device="cpu"))
