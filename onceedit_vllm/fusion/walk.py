"""The paper's iterate for textual maps: a column has one 1, so all tokens but the winner walk as one.

Both functions make the same of rows that hold the exact result. One has no shape that depends on data and
never waits; the other writes less, which is what a step costs on a CPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from onceedit_vllm.dense.search import adamw_logits
from onceedit_vllm.largest import first_max

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.config import FusionConfig


def walk_together_inplace(
    logits: Tensor, rows: Tensor, searched: Tensor, num_coordinates: int, config: FusionConfig
) -> None:
    """Turn exact results into where AdamW gets, all rows at once.

    Args:
        logits: (N, V_l), changed in place.
        rows: (n,) int64, -1 for none.
        searched: (n,) bool, which of them hold an exact result; the others stay as they are.
        num_coordinates: C, the width of R_l.
        config: Steps and learning rate.
    """
    # Entries that are no searched row stand for one that is, which comes out the same every time;
    # leaving them out would need a shape that depends on data.
    some = searched.int().argmax(dim=0, keepdim=True)
    rows = torch.where(searched, rows, rows.index_select(0, some)).clamp(min=0)
    results = logits.index_select(0, rows).to(torch.float32)
    allowed = results != -math.inf
    ends = _ends(allowed.sum(dim=1), num_coordinates, config)
    winner = results.argmax(dim=1, keepdim=True)
    walked = torch.where(allowed, ends[:, 1:], -math.inf).scatter_(1, winner, ends[:, :1])
    logits.index_copy_(0, rows, torch.where(searched.any(), walked, results).to(logits.dtype))


def walk_each_inplace(
    logits: Tensor, rows: Tensor, searched: Tensor, num_coordinates: int, config: FusionConfig
) -> None:
    """The same row by row."""
    for index in rows[searched].tolist():
        row = logits[index]
        winner = first_max(row[None])[1]
        masked = row == -math.inf if float(row.amin()) == -math.inf else None
        num_allowed = len(row) - (0 if masked is None else int(masked.sum()))
        (ends,) = _ends(torch.tensor([num_allowed]), num_coordinates, config).tolist()
        row.fill_(ends[1])
        if masked is not None:
            row.masked_fill_(masked, -math.inf)
        row[winner] = ends[0]


def _ends(num_allowed: Tensor, num_coordinates: int, config: FusionConfig) -> Tensor:
    """Where the winner and all others end up: (n,) int64 -> (n, 2) float32."""
    columns = torch.eye(2, device=num_allowed.device)[:1].expand(len(num_allowed), -1)
    copies = torch.stack([torch.ones_like(num_allowed), num_allowed - 1], dim=1)
    return adamw_logits(
        columns,
        copies.clamp_(min=0),
        num_coordinates,
        steps=config.search_steps,
        learning_rate=config.search_learning_rate,
    )
