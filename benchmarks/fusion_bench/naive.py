"""The baseline: one decoding step as DeePEn's public code does it, with the paper's start and target.

Both relative maps are matrices in memory, the fused distribution is two dense products, and the search is
autograd through a third one under AdamW: the product's own reference. Rows of a batch go through the
products together, which the original does not do: the baseline is the faster for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from onceedit_vllm.fusion import reference

if TYPE_CHECKING:
    from fusion_bench.inputs import Inputs


class Matrices(NamedTuple):
    """R_s (V_s, C) and R_l (V_l, C), float32."""

    plugin: Tensor
    llm: Tensor


def step(matrices: Matrices, plugin_log_probs: Tensor, llm_logits: Tensor, alpha: Tensor) -> Tensor:
    """One whole step: (n, V_s), (n, V_l), (n,) -> (n, V_l) logits."""
    probs = plugin_log_probs.exp(), llm_logits.softmax(dim=1)
    return reference.fused_step(probs[0], matrices.plugin, probs[1], matrices.llm, alpha)


def search(llm_map: Tensor, targets: Tensor, *, num_coordinates: int | None = None) -> Tensor:
    """Eq. 9-10: (V, C) and (n,) coordinates -> (n, V) logits; see :func:`reference.search`."""
    one_hot = torch.nn.functional.one_hot(targets, llm_map.shape[1]).to(llm_map.dtype)
    start = llm_map.new_zeros(len(targets), len(llm_map))
    return reference.search(llm_map, one_hot, start, num_coordinates=num_coordinates)


def token_in_double(matrices: Matrices, inputs: Inputs, row: int) -> int:
    """The token of one row's step in float64, with the matrices cast column block by column block."""
    one = [tensor[row : row + 1].double() for tensor in inputs]
    probs = one[0].exp(), one[1].softmax(dim=1)
    blocks = zip(matrices.plugin.split(1024, 1), matrices.llm.split(1024, 1), strict=True)
    fused = torch.cat(
        [reference.fuse(probs[0], r_s.double(), probs[1], r_l.double(), one[2]) for r_s, r_l in blocks], dim=1
    )
    column = matrices.llm[:, fused.argmax(dim=1)].T
    return int(search_columns_in_double(column, matrices.llm.shape[1]).argmax())


def search_columns_in_double(columns: Tensor, num_coordinates: int) -> Tensor:
    """The search in float64, (k, V), where only the columns (k, V) of the targets are at hand."""
    found = []
    for column in columns.double():
        rows = torch.stack([column, 1 - column], dim=1)
        target = torch.zeros(1, dtype=torch.int64, device=column.device)
        found.append(search(rows, target, num_coordinates=num_coordinates))
    return torch.cat(found)


def warm_up(device: torch.device) -> None:
    """Let torch import and compile what a first step needs."""
    matrices = Matrices(torch.full((4, 3), 1 / 3, device=device), torch.full((5, 3), 1 / 3, device=device))
    ones = [torch.zeros(2, size, device=device) for size in (4, 5)]
    step(matrices, ones[0].log_softmax(dim=1), ones[1], torch.full((2,), 0.5, device=device))
