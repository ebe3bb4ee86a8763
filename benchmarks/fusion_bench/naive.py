"""The baseline: one decoding step as DeePEn's public code does it, with the paper's start and target.

Both relative maps are matrices in memory, the fused distribution is two dense products, and the search is
autograd through a third one under AdamW. Rows of a batch go through the products together, which the
original does not do: the baseline is the faster for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from onceedit_vllm.fusion.reference import BETAS, COSINE_STEPS, EPS, LOWEST_RATE, WEIGHT_DECAY

if TYPE_CHECKING:
    from fusion_bench.inputs import Inputs


class Matrices(NamedTuple):
    """R_s (V_s, C) and R_l (V_l, C), float32."""

    plugin: Tensor
    llm: Tensor

    def num_bytes(self) -> int:
        """What they take in memory."""
        return sum(matrix.numel() * matrix.element_size() for matrix in self)


def fused_targets(matrices: Matrices, plugin_probs: Tensor, llm_probs: Tensor, alpha: Tensor) -> Tensor:
    """Eq. 8 and 11: (n, V_s), (n, V_l), (n,) -> a* of each row, (n,) int64."""
    fused = alpha[:, None] * (plugin_probs @ matrices.plugin)
    return fused.addmm_(llm_probs * (1 - alpha[:, None]), matrices.llm).argmax(dim=1)


def search(
    llm_map: Tensor,
    targets: Tensor,
    *,
    coordinates: int | None = None,
    steps: int = 5,
    learning_rate: float = 0.15,
) -> Tensor:
    """Eq. 9-10: (V, C) and (n,) one-hot targets -> (n, V) logits.

    ``coordinates`` is C where only some of the columns are given: without weight in the target the others
    have no part in the loss but its mean.
    """
    mean_over = coordinates or llm_map.shape[1]
    x = torch.zeros(
        len(targets), len(llm_map), device=llm_map.device, dtype=llm_map.dtype, requires_grad=True
    )
    optimizer = torch.optim.AdamW([x], lr=learning_rate, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=COSINE_STEPS, eta_min=LOWEST_RATE * learning_rate
    )
    divergence = torch.nn.KLDivLoss(reduction="sum")
    one_hot = torch.nn.functional.one_hot(targets, llm_map.shape[1]).to(llm_map.dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        # The mean reduction of one row divides by the number of coordinates; rows do not share a loss.
        loss = divergence((x.softmax(dim=1) @ llm_map).log(), one_hot) / mean_over
        loss.backward()
        optimizer.step()
        schedule.step()
    return x.detach()


def step(matrices: Matrices, plugin_log_probs: Tensor, llm_logits: Tensor, alpha: Tensor) -> Tensor:
    """One whole step: (n, V_s), (n, V_l), (n,) -> (n, V_l) logits."""
    targets = fused_targets(matrices, plugin_log_probs.exp(), llm_logits.softmax(dim=1), alpha)
    return search(matrices.llm, targets)


def token_in_double(matrices: Matrices, inputs: Inputs, row: int) -> int:
    """The token of one row's step in float64, with the matrices cast column block by column block."""
    one = [tensor[row : row + 1].double() for tensor in inputs]
    fused = torch.cat(
        [
            one[2] * (one[0].exp() @ plugin.double()) + (1 - one[2]) * (one[1].softmax(dim=1) @ llm.double())
            for plugin, llm in zip(matrices.plugin.split(1024, 1), matrices.llm.split(1024, 1), strict=True)
        ],
        dim=1,
    )
    column = matrices.llm[:, fused.argmax(dim=1)].T
    return int(search_columns_in_double(column, matrices.llm.shape[1]).argmax())


def search_columns_in_double(columns: Tensor, coordinates: int) -> Tensor:
    """The search in float64, (k, V), where only the columns (k, V) of the targets are at hand."""
    found = []
    for column in columns.double():
        rows = torch.stack([column, 1 - column], dim=1)
        target = torch.zeros(1, dtype=torch.int64, device=column.device)
        found.append(search(rows, target, coordinates=coordinates))
    return torch.cat(found)


def warm_up(device: torch.device) -> None:
    """Let torch import and compile what a first step needs."""
    matrices = Matrices(torch.full((4, 3), 1 / 3, device=device), torch.full((5, 3), 1 / 3, device=device))
    ones = [torch.zeros(2, size, device=device) for size in (4, 5)]
    step(matrices, ones[0].log_softmax(dim=1), ones[1], torch.full((2,), 0.5, device=device))
