"""The textual relative map: a token goes to the coordinate of its own text. Sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.alignment.spelling import Spellings, spell

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.anchors import Anchors
    from onceedit_vllm.alignment.surface import Surface
    from onceedit_vllm.config import MapKind


@dataclass(frozen=True)
class TextualMap:
    """One-hot rows, held as one coordinate per token.

    Attributes:
        coordinate: (V,) int64, the coordinate of each token's row; -1 for a token without text in
            the other vocabulary, whose row is zero: its probability is dropped.
        num_coordinates: A anchors, then one private coordinate per LLM-only token.
    """

    coordinate: Tensor
    num_coordinates: int
    kind: MapKind = "textual"

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.coordinate)

    def rows(self, token_ids: Tensor) -> Tensor:
        """Rows of R: (k,) int64 -> (k, C) float32."""
        coordinate = self.coordinate[token_ids]
        rows = torch.zeros(len(token_ids), self.num_coordinates, device=coordinate.device)
        known = (coordinate >= 0).nonzero().squeeze(1)
        rows[known, coordinate[known]] = 1.0
        return rows

    def columns(self, coordinates: Tensor) -> Tensor:
        """Columns of R, transposed: (k,) int64 -> (k, V) float32."""
        return (self.coordinate == coordinates[:, None]).to(torch.float32)

    def project(self, probs: Tensor) -> Tensor:
        """``probs @ R``: (n, V) float32 -> (n, C) float32, a scatter."""
        known = self.coordinate >= 0
        projected = probs.new_zeros(len(probs), self.num_coordinates)
        target = self.coordinate[known].expand(len(probs), -1)
        return projected.scatter_add_(1, target, probs[:, known])

    def bytes_held(self) -> int:
        """Bytes of the coordinate table."""
        return self.coordinate.numel() * self.coordinate.element_size()

    def to(self, device: torch.device) -> TextualMap:
        """The same map on another device."""
        return TextualMap(self.coordinate.to(device), self.num_coordinates)


def textual_maps(anchors: Anchors, carry: Tensor, llm_size: int) -> tuple[TextualMap, TextualMap]:
    """R_s and R_l over the same coordinates, one for every token of the LLM.

    Args:
        anchors: A pairs; pair j owns coordinate j.
        carry: (V_s,) int64, LLM token of each plug-in token, -1 where none.
        llm_size: V_l, at most which ids the LLM's logits have.

    Returns:
        The plug-in's map (V_s tokens) and the LLM's (a permutation of V_l), C = V_l on both sides.
    """
    of_llm = torch.full((llm_size,), -1, dtype=torch.int64)
    of_llm[anchors.llm_ids] = torch.arange(len(anchors))
    private = of_llm < 0
    of_llm[private] = torch.arange(len(anchors), llm_size)
    of_plugin = torch.where(carry >= 0, of_llm[carry.clamp(min=0)], -1)
    return TextualMap(of_plugin, llm_size), TextualMap(of_llm, llm_size)


def carry_table(
    plugin: Surface, llm: Surface, llm_tokenizer: Any, anchors: Anchors, plugin_size: int
) -> tuple[Tensor, Spellings]:
    """The textual map as a table: plug-in token id -> LLM token id.

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
