"""Attention of a few new tokens to many old ones, without repeating the old ones for every head.

Models whose query heads share keys and values (grouped queries) have them repeated for each query head as
soon as there is a mask, and padding is a mask. In a step of one token that copies all keys and values of the
batch once more, in every layer. Here the query heads of a group stand beside each other as if they were
tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "onceedit_sdpa"
#: With more new tokens the mask, repeated for every head, costs more than what is saved.
_MAX_QUERY = 16


def use_grouped_queries(model: PreTrainedModel) -> None:
    """Let a model attend as said above, where transformers would use its `sdpa` and lets one choose.

    Models with attention of their own, or that ask for the eager one, are left alone.
    """
    if model.config._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, grouped_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it; see :func:`use_grouped_queries`.

    Args:
        module: The layer's attention.
        query: (n, query_heads, query_length, head_dim).
        key: (n, heads, kv_length, head_dim).
        value: (n, heads, kv_length, value_dim).
        attention_mask: (n or 1, 1, query_length, kv_length), bool or added to the scores. None: causal.
        options: `scaling`, and what else transformers gives.

    Returns:
        (n, query_length, query_heads, value_dim), and no weights.
    """
    length, num_groups = query.shape[2], query.shape[1] // key.shape[1]
    is_causal = length > 1 and attention_mask is None
    is_plain = options.get("position_bias") is None and not options.get("dropout")
    if num_groups == 1 or length > _MAX_QUERY or is_causal or not is_plain:
        return _as_before(module, query, key, value, attention_mask, **options)
    if attention_mask is not None and attention_mask.shape[1] != 1:
        return _as_before(module, query, key, value, attention_mask, **options)
    beside = query.reshape(query.shape[0], key.shape[1], num_groups * length, query.shape[3])
    mask = None if attention_mask is None else attention_mask.repeat(1, 1, num_groups, 1)
    attended = torch.nn.functional.scaled_dot_product_attention(
        beside, key, value, attn_mask=mask, scale=options.get("scaling")
    )
    return attended.reshape(*query.shape[:3], value.shape[3]).transpose(1, 2).contiguous(), None


def _as_before(*args: Any, **options: Any) -> tuple[torch.Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(*args, **options)
