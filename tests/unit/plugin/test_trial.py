"""Models that cannot be plug-ins are named before the first request."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.runtime import PlugInRuntime
from onceedit_vllm.plugin.trial import refuse_speechless, refuse_unfaithful
from onceedit_vllm.testing import toy_causal_lm


def tiny(kind: str) -> Any:
    from transformers import AutoModelForCausalLM, MambaConfig, Qwen3NextConfig, RwkvConfig

    configs = {
        "MambaForCausalLM": lambda: MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2),
        "RwkvForCausalLM": lambda: RwkvConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2),
        "Qwen3NextForCausalLM": lambda: Qwen3NextConfig(
            vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8,
            shared_expert_intermediate_size=8, linear_num_key_heads=2, linear_num_value_heads=2,
            linear_key_head_dim=8, linear_value_head_dim=8,
        ),
    }  # fmt: skip
    return AutoModelForCausalLM.from_config(configs[kind]())


@pytest.mark.parametrize("kind", ["MambaForCausalLM", "RwkvForCausalLM", "Qwen3NextForCausalLM"])
def test_other_caches_are_refused_by_name(kind: str) -> None:
    with pytest.raises(ModelError, match=f"{kind}.*cannot be a plug-in"):
        PlugInRuntime(tiny(kind), 9, 64, kv_cache_bytes=2**20)


def test_a_model_that_forgets_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_causal_lm(50)
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda past_key_values=None, **inputs: forward(**inputs))
    with pytest.raises(ModelError, match="2 of its 2 layers do not keep"):
        refuse_unfaithful(PlugInRuntime(model, 9, 64, kv_cache_bytes=2**20))


def test_a_model_that_reads_other_positions_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_causal_lm(50, kind="gpt2")
    forward = model.forward

    def shifted(position_ids: torch.Tensor | None = None, **inputs: Any) -> Any:
        shift = None if position_ids is None else position_ids + 3
        return forward(position_ids=shift, **inputs)

    monkeypatch.setattr(model, "forward", shifted)
    with pytest.raises(ModelError, match="reading in parts differs"):
        refuse_unfaithful(PlugInRuntime(model, 9, 64, kv_cache_bytes=2**20))


def test_weight_token_of_another_model() -> None:
    with pytest.raises(ModelError, match="has id 50, but the plug-in knows 50"):
        PlugInRuntime(toy_causal_lm(50), 50, 64, kv_cache_bytes=2**20)


def test_a_model_of_broken_numbers_is_not_refused() -> None:
    model: Any = toy_causal_lm(50)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    runtime = PlugInRuntime(model, 9, 64, kv_cache_bytes=2**20)
    refuse_unfaithful(runtime)
    with pytest.raises(ModelError, match="not a number"):
        refuse_speechless(runtime, [1, 2])


def test_a_text_that_cannot_be_read_is_said_before_a_swap() -> None:
    runtime = PlugInRuntime(toy_causal_lm(50), 9, 64, kv_cache_bytes=2**20)
    refuse_speechless(runtime, [1, 2])
    with pytest.raises(ModelError, match="cannot read the first of its edits"):
        refuse_speechless(runtime, [3] * 65)
