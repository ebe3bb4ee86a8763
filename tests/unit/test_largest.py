from __future__ import annotations

import math

import pytest
import torch

from onceedit_vllm.largest import first_max, top_k

WIDTHS = [1, 63, 4096, 4097, 32768, 49153, 262144]


@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("strided", [False, True])
def test_top_k_is_topk(size: int, strided: bool) -> None:
    torch.manual_seed(0)
    values = torch.randn(3, size * 2)[:, ::2] if strided else torch.randn(3, size)
    values[1, :: max(1, size // 7)] = 9.0
    values[2] = -math.inf
    values[2, size // 2] = 0.0
    for k in {1, min(16, size), min(300, size), size if size < 5000 else 1000}:
        found, indices = top_k(values, k)
        assert torch.equal(found, values.topk(k, dim=1).values)
        assert torch.equal(values.gather(1, indices), found)
        assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("size", WIDTHS)
def test_first_max_is_max_with_the_first_index(size: int) -> None:
    torch.manual_seed(0)
    values = torch.randn(5, size)
    values[1, [size - 1, size // 3, size // 2]] = 9.0
    values[2] = -math.inf
    values[3] = 4.0
    found, indices = first_max(values)
    assert torch.equal(found, values.amax(dim=1))
    expected = [int((row == row.amax()).nonzero()[0]) for row in values]
    assert indices.tolist() == expected


def test_not_a_number_is_not_lost() -> None:
    values = torch.zeros(1, 100_000)
    values[0, 77_777] = math.nan
    found, indices = first_max(values)
    assert found.isnan()
    assert 0 <= int(indices) < 100_000
