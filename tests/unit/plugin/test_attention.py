"""Query heads beside each other attend as they do one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onceedit_vllm.plugin.attention import grouped_attention, use_grouped_queries
from onceedit_vllm.testing import toy_causal_lm


def layer(num_groups: int) -> Any:
    module: Any = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = num_groups, True
    return module


def mask_of(kind: str, num_texts: int, query: int, kv: int) -> torch.Tensor | None:
    """Left padding of a different length in every row, and no token after itself."""
    if kind == "none":
        return None
    columns = torch.arange(kv)
    causal = columns[None, :] <= torch.arange(kv - query, kv)[:, None]
    padded = columns[None, :] >= torch.arange(num_texts)[:, None] * 2
    mask = (causal[None] & padded[:, None])[:, None]
    return mask if kind == "bool" else torch.zeros(mask.shape).masked_fill(~mask, torch.finfo().min)


@pytest.mark.parametrize("kind", ["none", "bool", "float"])
@pytest.mark.parametrize("query", [1, 3, 16, 17])
@pytest.mark.parametrize(("heads", "groups"), [(3, 3), (1, 4), (4, 1)])
def test_equals_the_attention_of_transformers(kind: str, query: int, heads: int, groups: int) -> None:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    torch.manual_seed(0)
    kv = 20 if kind != "none" or query == 1 else query
    queries = torch.randn(3, heads * groups, query, 8)
    keys, values = torch.randn(3, heads, kv, 8), torch.randn(3, heads, kv, 6)
    mask = mask_of(kind, 3, query, kv)
    given, _ = grouped_attention(layer(groups), queries, keys, values, mask, scaling=0.3)
    wanted, _ = sdpa_attention_forward(layer(groups), queries, keys, values, mask, scaling=0.3)
    # Queries that are padding attend to nothing, and nobody reads what comes of it.
    real = slice(None) if mask is None else slice(max(0, 4 - (kv - query)), None)
    torch.testing.assert_close(given[:, real], wanted[:, real], atol=1e-5, rtol=1e-5)


def test_only_models_that_let_one_choose_are_changed() -> None:
    from transformers import AutoModelForCausalLM, BloomConfig

    llama: Any = toy_causal_lm(50)
    use_grouped_queries(llama)
    assert llama.config._attn_implementation == "onceedit_sdpa"
    eager: Any = toy_causal_lm(50)
    eager.set_attn_implementation("eager")
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=4))
    for model in (eager, bloom):
        before = model.config._attn_implementation
        use_grouped_queries(model)
        assert model.config._attn_implementation == before
