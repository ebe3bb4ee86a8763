from __future__ import annotations

import pytest
import torch

from onceedit_vllm.config import MapKind
from onceedit_vllm.fusion import project
from onceedit_vllm.fusion.project import fused_distribution, fused_peak
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


@pytest.mark.parametrize("sizes", [(1, 2, 4), (2, 8), (64,)], ids=str)
@pytest.mark.parametrize("kind", ["calibrated", "eq16", "deepen"])
def test_the_peak_is_never_a_guess(
    kind: MapKind, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "_TOP_SIZES", sizes)
    alignment = toy_alignment(kind, plugin_size=70, llm_size=90, num_anchors=40)
    r_s, r_l = alignment.plugin_map, alignment.llm_map
    torch.manual_seed(1)
    outcomes = set()
    for sharpness in (0.5, 3.0, 10.0, 40.0):
        for _ in range(8):
            alpha = torch.rand(1)
            p_s = alpha * distributions(1, 70, sharpness)[0]
            p_l = (1 - alpha) * distributions(1, 90, sharpness)[0]
            allowed = torch.rand(40) < 0.6
            allowed[5] = True
            peak = fused_peak(r_s, r_l, p_s, p_l, allowed)
            exact = (r_s.project(p_s[None].double().float()) + r_l.project(p_l[None]))[0]
            assert peak.coordinate == int(exact.masked_fill(~allowed, -1.0).argmax())
            assert allowed[peak.coordinate]
            outcomes.add(peak.certified)
    if sizes == (1, 2, 4):
        assert outcomes == {True, False}, "both ways were taken"


def test_near_ties_are_not_certified_by_a_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "_TOP_SIZES", (1,))
    alignment = toy_alignment("eq16", plugin_size=70, llm_size=90, num_anchors=40)
    flat = torch.full((90,), 1 / 90)
    everything = torch.ones(40, dtype=torch.bool)
    peak = fused_peak(alignment.plugin_map, alignment.llm_map, torch.zeros(70), flat, everything)
    assert not peak.certified
