"""The textual relative maps as one table: a plug-in token goes to the LLM token of its own text.

Every LLM token owns a coordinate of the relative space, so that R_l is a permutation and R_s one-hot: what
the table says. An anchor's coordinate is both its tokens'; those of LLM-only tokens are private.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.alignment.spelling import Spellings, spell

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.anchors import Anchors
    from onceedit_vllm.alignment.surface import Surface


def carry_table(
    plugin: Surface, llm: Surface, llm_tokenizer: Any, anchors: Anchors, plugin_size: int
) -> tuple[Tensor, Spellings]:
    """Plug-in token id -> LLM token id.

    A token goes to the LLM token of the same bytes, else to the first LLM token of its own text.
    End of sequence goes to end of sequence; other specials, [WEIGHT] and unused ids to -1.

    Args:
        plugin: The plug-in's surface.
        llm: The LLM's surface.
        llm_tokenizer: The LLM's tokenizer, which cuts the texts it has no single token for.
        anchors: Pairs that take precedence, the pair of EOS tokens among them.
        plugin_size: V_s, the number of probabilities the plug-in gives.

    Returns:
        (V_s,) int64, and the whole spelling of the tokens that the LLM writes in several.
    """
    carry = torch.full((plugin_size,), -1, dtype=torch.int64)
    missing: dict[int, bytes] = {}
    for index, text in enumerate(plugin.token_bytes[:plugin_size]):
        if not text:
            continue
        partner = llm.id_of.get(text)
        if partner is None:
            missing[index] = text
        else:
            carry[index] = partner
    spelt = spell(missing, llm, llm_tokenizer)
    for index, ids in spelt.items():
        carry[index] = ids[0]
    if anchors.matching == "bytes":
        carry[anchors.plugin_ids] = anchors.llm_ids
    if plugin.eos_id is not None and llm.eos_id is not None:
        carry[plugin.eos_id] = llm.eos_id
    return carry, Spellings.of({index: ids for index, ids in spelt.items() if len(ids) > 1})
