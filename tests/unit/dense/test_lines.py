from __future__ import annotations

import torch

from onceedit_vllm.dense.lines import LineCache, MapLines
from tests.unit.alignment.toys import toy_alignment

WIDTH = 10
LINE = 4 * WIDTH


class Counted:
    """Lines that say which they are, and how often they were made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        self.made += ids.tolist()
        return ids[:, None].float().expand(-1, WIDTH)


def get(cache: LineCache, *ids: int) -> None:
    lines = cache.get(torch.tensor(ids, dtype=torch.int64))
    assert lines.shape == (len(ids), WIDTH)
    assert lines[:, 0].tolist() == list(ids)


def test_lines_are_made_once_and_the_oldest_go_first() -> None:
    compute = Counted()
    cache = LineCache(compute, 3 * LINE)
    get(cache, 1, 2, 1)
    get(cache, 2, 3)
    assert compute.made == [1, 2, 3]
    assert (cache.hits, cache.misses, cache.bytes_held) == (2, 3, 3 * LINE)
    get(cache, 1, 4)  # 2 was used longest ago
    get(cache, 3, 1)
    assert compute.made == [1, 2, 3, 4]
    get(cache, 2)
    assert compute.made == [1, 2, 3, 4, 2]
    assert cache.bytes_held == 3 * LINE


def test_more_lines_than_fit() -> None:
    compute = Counted()
    cache = LineCache(compute, 2 * LINE + 1)
    get(cache, *range(7))
    assert cache.bytes_held == 2 * LINE
    get(cache, 5, 6)
    assert cache.hits == 2


def test_a_cache_of_no_size_and_no_lines() -> None:
    compute = Counted()
    cache = LineCache(compute, 0)
    get(cache, 1)
    get(cache, 1)
    get(cache)
    assert compute.made == [1, 1]
    assert cache.bytes_held == 0


def test_what_is_given_out_may_be_changed() -> None:
    cache = LineCache(Counted(), 5 * LINE)
    cache.get(torch.tensor([3, 4])).zero_()
    cache.get(torch.tensor([3])).zero_()
    get(cache, 3, 4)


def test_lines_of_a_map_are_its_rows_and_columns() -> None:
    dense = toy_alignment("eq16").dense
    assert dense is not None
    relative_map = dense.llm_map
    lines = MapLines(relative_map, 1 << 20)
    ids = torch.tensor([4, 1, 4])
    for _ in range(2):
        torch.testing.assert_close(lines.rows.get(ids), relative_map.rows(ids))
        torch.testing.assert_close(lines.columns.get(ids), relative_map.columns(ids))
    assert lines.bytes_held() == relative_map.bytes_held() + 4 * 2 * (12 + 31)
