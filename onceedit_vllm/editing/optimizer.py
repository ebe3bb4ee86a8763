"""AdamW on float32 master weights, whatever the dtype the model computes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class MasterAdamW(torch.optim.AdamW):
    """AdamW whose parameters are float32 copies of a model's.

    A bfloat16 weight cannot hold a step of 1e-4 of its size; the copy can, and the model gets
    the rounded copy after each step. Parameters that are float32 already are their own copies.
    """

    def __init__(self, model: nn.Module, lr: float) -> None:
        """Take the trainable parameters of the model. No weight decay, as the paper has none."""
        named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        self.names = [name for name, _ in named]
        self.weights = [weight for _, weight in named]
        self.masters = [
            weight if weight.dtype == torch.float32 else weight.detach().float().requires_grad_()
            for weight in self.weights
        ]
        super().__init__(self.masters, lr=lr, weight_decay=0.0, fused=True)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take the model's gradients over, step, and give the weights back."""
        for master, weight in self._copied():
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        result = super().step(closure)
        self.export()
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the copies and of the model."""
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def export(self) -> None:
        """Write the copies into the model."""
        for master, weight in self._copied():
            weight.copy_(master)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold: weights and moments, by name."""
        found: dict[str, Tensor] = {}
        for name, master in zip(self.names, self.masters, strict=True):
            found[f"weight.{name}"] = master.detach()
            for key, value in self.state[master].items():
                found[f"{key}.{name}"] = value
        return found

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what :meth:`tensors` gave."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(tensors[f"weight.{name}"])
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{key}.{name}" in tensors:
                    value = tensors[f"{key}.{name}"]
                    self.state[master][key] = value.clone() if key == "step" else value.to(master.device)
        self.export()

    def _copied(self) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(self.masters, self.weights, strict=True)
        return [(master, weight) for master, weight in pairs if master is not weight]
