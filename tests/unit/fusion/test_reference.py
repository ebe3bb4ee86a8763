from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from onceedit_vllm.fusion.reference import augment, fuse, fused_step, search


def stochastic(rows: int, columns: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(rows, columns, dtype=dtype).softmax(dim=1)


def case(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    plugin, llm = stochastic(1, 6, dtype)[0], (4 * torch.randn(1, 9, dtype=dtype)).softmax(1)[0]
    return plugin, stochastic(6, 5, dtype), llm, stochastic(9, 5, dtype)


def test_fusion_is_a_distribution_between_the_two() -> None:
    plugin, plugin_map, llm, llm_map = case()
    for alpha in (0.0, 0.3, 1.0):
        fused = fuse(plugin, plugin_map, llm, llm_map, alpha)
        torch.testing.assert_close(fused.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert torch.equal(fuse(plugin, plugin_map, llm, llm_map, 1.0), plugin @ plugin_map)


def test_target_augmentation_takes_the_lowest_of_equals() -> None:
    assert augment(torch.tensor([0.1, 0.4, 0.4, 0.1])).tolist() == [0.0, 1.0, 0.0, 0.0]


def numpy_adamw(llm_map: torch.Tensor, target: torch.Tensor, start: torch.Tensor, steps: int) -> list[float]:
    """AdamW on KLDivLoss (mean) written out with Python floats: nothing shared with torch's."""
    matrix, x = llm_map.tolist(), start.tolist()
    size, width = len(matrix), len(matrix[0])
    first, second = [0.0] * size, [0.0] * size
    for step in range(1, steps + 1):
        rate = 0.0375 + (0.15 - 0.0375) * (1 + math.cos(math.pi * (step - 1) / 10)) / 2
        exps = [math.exp(value - max(x)) for value in x]
        p = [value / sum(exps) for value in exps]
        image = [sum(p[i] * matrix[i][j] for i in range(size)) for j in range(width)]
        pull = [-float(target[j]) / image[j] / width for j in range(width)]
        outer = [sum(matrix[i][j] * pull[j] for j in range(width)) for i in range(size)]
        mean = sum(p[i] * outer[i] for i in range(size))
        for i in range(size):
            gradient = p[i] * (outer[i] - mean)
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            divisor = math.sqrt(second[i]) / math.sqrt(1 - 0.999**step) + 1e-8
            x[i] = x[i] * (1 - rate * 0.01) - rate / (1 - 0.9**step) * first[i] / divisor
    return x


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("target_kind", ["fused", "onehot"])
def test_search_is_adamw_on_the_divergence(steps: int, target_kind: str) -> None:
    plugin, plugin_map, llm, llm_map = case(3)
    target = fuse(plugin, plugin_map, llm, llm_map, 0.7)
    target = augment(target) if target_kind == "onehot" else target
    start = torch.zeros(9, dtype=torch.float64)
    found = search(llm_map, target, start, steps=steps)
    expected = torch.tensor(numpy_adamw(llm_map, target, start, steps), dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_rows_of_a_batch_do_not_share_a_loss() -> None:
    cases = [case(seed) for seed in range(3)]
    plugin_map, llm_map = cases[0][1], cases[0][3]
    plugin, llm = (torch.stack([one[part] for one in cases]) for part in (0, 2))
    alpha, allowed = torch.tensor([0.0, 0.4, 1.0]), torch.arange(9) != 4
    found = fused_step(plugin, plugin_map, llm, llm_map, alpha, allowed=allowed)
    for row in range(3):
        alone = fused_step(plugin[row], plugin_map, llm[row], llm_map, float(alpha[row]), allowed=allowed)
        torch.testing.assert_close(found[row], alone, atol=1e-7, rtol=0)


def test_a_column_alone_is_searched_like_the_whole_map() -> None:
    llm_map = case()[3]
    start, column = torch.zeros(9, dtype=torch.float64), llm_map[:, 2]
    whole = search(llm_map, (torch.arange(5) == 2).double(), start)
    pair = torch.stack([column, 1 - column], dim=1)
    short = search(pair, torch.tensor([1.0, 0.0], dtype=torch.float64), start, num_coordinates=5)
    torch.testing.assert_close(short, whole, atol=1e-9, rtol=0)


def test_the_switches_of_the_ablation() -> None:
    plugin, plugin_map, llm, llm_map = case(1)

    def run(**switches: Any) -> torch.Tensor:
        return fused_step(plugin, plugin_map, llm, llm_map, 0.9, **switches)

    default = run()
    assert torch.equal(default, run(init="zeros", target="onehot", weight="gate"))
    assert torch.equal(run(steps=0, init="llm"), llm.log())
    assert torch.equal(run(steps=0), torch.zeros_like(llm))
    assert torch.equal(run(weight="fixed", fixed_weight=0.9), default)
    assert not torch.equal(run(init="llm"), default)
    assert not torch.equal(run(target="fused"), default)
    assert not torch.equal(run(target="fused"), run(target="fused", weight="fixed"))


def test_starting_at_the_llm_keeps_its_bias() -> None:
    """The paper's reason for Eq. 10: from its own distribution the LLM wins over the edit."""
    llm = torch.tensor([0.98, 0.01, 0.01], dtype=torch.float64)
    plugin = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    identity = torch.eye(3, dtype=torch.float64) * 0.94 + 0.02
    assert fused_step(plugin, identity, llm, identity, 0.95, init="llm").argmax() == 0
    assert fused_step(plugin, identity, llm, identity, 0.95).argmax() == 1


def test_masked_tokens_stay_out() -> None:
    plugin, plugin_map, llm, llm_map = case(2)
    allowed = torch.tensor([True, False] * 4 + [True])
    logits = fused_step(plugin, plugin_map, llm, llm_map, 0.5, allowed=allowed)
    assert (logits[~allowed] == -math.inf).all()
    assert logits[allowed].isfinite().all()
    reduced = fused_step(plugin, plugin_map, llm, llm_map, 0.0, steps=0)
    assert reduced.isfinite().all()


def test_single_and_double_precision_agree() -> None:
    for seed in range(5):
        inputs = case(seed)
        double, single = (
            fused_step(plugin, plugin_map, llm, llm_map, 0.8)
            for plugin, plugin_map, llm, llm_map in (inputs, [tensor.float() for tensor in inputs])
        )
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)
