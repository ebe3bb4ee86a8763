from __future__ import annotations

import pytest
import torch

from onceedit_vllm.config import MapKind
from onceedit_vllm.fusion.project import fused_distribution
from onceedit_vllm.fusion.reference import fuse
from tests.unit.alignment.toys import toy_alignment

KINDS: list[MapKind] = ["textual", "calibrated", "eq16", "deepen"]


def distributions(rows: int, size: int, sharpness: float) -> torch.Tensor:
    return (sharpness * torch.randn(rows, size)).softmax(dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_fused_distribution_is_equation_8(kind: MapKind) -> None:
    torch.manual_seed(0)
    alignment = toy_alignment(kind)
    r_s, r_l = alignment.plugin_map, alignment.llm_map
    p_s, p_l = distributions(3, r_s.vocab_size, 2.0), distributions(3, r_l.vocab_size, 2.0)
    alpha = torch.tensor([0.0, 0.4, 1.0])
    fused = fused_distribution(r_s, r_l, p_s, p_l, alpha)
    full_s, full_l = r_s.rows(torch.arange(r_s.vocab_size)), r_l.rows(torch.arange(r_l.vocab_size))
    for row in range(3):
        expected = fuse(p_s[row], full_s, p_l[row], full_l, float(alpha[row]))
        torch.testing.assert_close(fused[row], expected, atol=1e-6, rtol=1e-5)
