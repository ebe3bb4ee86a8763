from __future__ import annotations

import pytest

from onceedit_vllm.alignment.cost import relative_map_flops
from onceedit_vllm.errors import BadInputError

TINY_LLAMA = (32001, 2048)


@pytest.mark.parametrize(
    ("vocab_size", "num_anchors", "tflops"),
    [(32000, 31999, 12.638), (32000, 24184, 9.552), (50400, 17830, 9.739)],
    ids=["Llama2-7B", "Mistral-7B-v0.1", "GPT-J-6B"],
)
def test_table_5_from_table_9(vocab_size: int, num_anchors: int, tflops: float) -> None:
    llm = relative_map_flops(vocab_size, num_anchors, 4096)
    plugin = relative_map_flops(TINY_LLAMA[0], num_anchors, TINY_LLAMA[1])
    assert (llm + plugin) / 1e12 == pytest.approx(tflops, abs=1e-3)


def test_the_sum_of_the_parts() -> None:
    v, a, d = 7, 5, 3
    dot = v * a * (2 * d - 1)  # Eq. 20
    norms = v * (2 * d - 1 + 2) + a * (2 * d - 1 + 2) + 1  # Eq. 21
    division = v * a  # Eq. 22
    softmax = v * a * 25 + v * (a - 1) + v * a  # Eq. 24
    assert relative_map_flops(v, a, d) == dot + norms + division + softmax


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(BadInputError, match="num_anchors=0"):
        relative_map_flops(10, 0, 4)
