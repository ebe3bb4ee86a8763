"""The product's step, both halves of it: the plug-in's distribution carried, and fused."""

from __future__ import annotations

import torch
from fusion_bench.inputs import Inputs
from fusion_bench.setups import Setup
from torch import Tensor

from onceedit_vllm.config import FusionConfig
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.fusion.fuser import Fuser
from onceedit_vllm.fusion.lists import Lists


class Product:
    """Greedy steps with one setup, whose widths are those of the first inputs."""

    def __init__(self, setup: Setup, config: FusionConfig) -> None:
        self.fuser = Fuser(setup.alignment, config, setup.device)
        self._setup = setup
        self._carrier: Carrier | None = None

    def carry(self, inputs: Inputs) -> Lists:
        """What the plug-in says, in whole lists."""
        if self._carrier is None:
            widths = inputs.llm_logits.shape[1], inputs.plugin_log_probs.shape[1]
            self._carrier = Carrier.of(self._setup.alignment, *widths, self._setup.device)
        return self._carrier.carry(inputs.plugin_log_probs)

    def fuse(self, logits: Tensor, lists: Lists, inputs: Inputs) -> list[int]:
        """One greedy step of every row, in place; the rows whose cut list was not enough."""
        rows = torch.arange(len(logits), device=logits.device)
        return self.fuser.fuse_rows_inplace(
            logits, rows, lists, inputs.alpha, rows >= 0, inputs.plugin_log_probs
        )

    def step(self, inputs: Inputs, logits: Tensor) -> None:
        """Both."""
        self.fuse(logits, self.carry(inputs), inputs)

    def bytes_held(self) -> int:
        """Bytes of the tables in use."""
        return self.fuser.bytes_held() + (0 if self._carrier is None else self._carrier.bytes_held())
