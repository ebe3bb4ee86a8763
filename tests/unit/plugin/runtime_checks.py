"""What a plug-in must say after a text, by the model alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onceedit_vllm.plugin.runtime import PlugInOutput


def expected(model: Any, token_ids: list[int]) -> tuple[torch.Tensor, float]:
    """Log-probabilities and [WEIGHT] logit after a text, by the model alone."""
    ids = torch.tensor([token_ids])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1].float()
    weight = float(logits[-1])
    logits[-1] = -torch.inf
    return logits.log_softmax(-1), weight


def check(output: PlugInOutput, model: Any, texts: list[list[int]], rtol: float = 0.0) -> None:
    """The output is what the model says after these texts, in this order, within 1e-4."""
    assert output.log_probs.shape[0] == output.weight_logits.shape[0] == len(texts)
    assert output.log_probs.dtype == output.weight_logits.dtype == torch.float32
    for log_probs, weight_logit, text in zip(*output, texts, strict=True):
        reference, weight = expected(model, text)
        torch.testing.assert_close(log_probs.cpu(), reference, atol=1e-4, rtol=rtol)
        assert float(weight_logit) == pytest.approx(weight, abs=1e-4, rel=rtol)
