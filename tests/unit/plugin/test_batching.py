"""Which texts a pass reads together."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.plugin.batching import BatchCost, Shape, grouped

COST = BatchCost(per_pass=24.0, per_column=0.01)
SHAPES = st.lists(st.builds(lambda new, old: Shape(new, new + old), st.integers(1, 60), st.integers(0, 900)))


def groups_of(shapes: list[Shape], cost: BatchCost = COST, max_tokens: int = 10**6) -> list[list[int]]:
    return list(grouped(shapes, cost, max_tokens))


def total(groups: list[list[int]], shapes: list[Shape]) -> float:
    sizes = [(len(group), *(max(shapes[i][axis] for i in group) for axis in (0, 1))) for group in groups]
    return sum(COST.of_batch(*size) for size in sizes)


def partitions(places: list[int]) -> Iterator[list[list[int]]]:
    """All ways to part some texts."""
    if not places:
        yield []
        return
    first, *rest = places
    for parted in partitions(rest):
        yield [[first], *parted]
        for i, group in enumerate(parted):
            yield [*parted[:i], [first, *group], *parted[i + 1 :]]


@given(SHAPES)
def test_every_text_is_read_once_and_parting_never_costs_more(shapes: list[Shape]) -> None:
    groups = groups_of(shapes)
    assert sorted(i for group in groups for i in group) == list(range(len(shapes)))
    if shapes:
        assert total(groups, shapes) <= total([list(range(len(shapes)))], shapes) + 1e-9


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6))
def test_one_new_token_each_costs_little_more_than_the_best_of_all_ways(lengths: list[int]) -> None:
    shapes = [Shape(1, length) for length in lengths]
    best = min(total(groups, shapes) for groups in partitions(list(range(len(shapes)))))
    assert total(groups_of(shapes), shapes) <= 1.15 * best


def test_a_long_history_is_kept_from_the_short_ones() -> None:
    shapes = [Shape(1, 40)] * 7 + [Shape(1, 4000)]
    assert sorted(map(sorted, groups_of(shapes))) == [list(range(7)), [7]]


def test_histories_of_about_one_length_stay_together() -> None:
    assert len(groups_of([Shape(1, 200 + i) for i in range(16)])) == 1


def test_a_prompt_is_kept_from_single_tokens() -> None:
    shapes = [Shape(1, 100), Shape(100, 100), Shape(1, 100)]
    assert sorted(map(sorted, groups_of(shapes))) == [[0, 2], [1]]


def test_a_pass_is_not_too_large() -> None:
    groups = groups_of([Shape(100, 100)] * 7, max_tokens=250)
    assert sorted(len(group) for group in groups) == [1, 2, 2, 2]
    assert groups_of([Shape(900, 900)], max_tokens=250) == [[0]]


def test_on_a_gpu_a_pass_more_is_dear() -> None:
    """As timed on an H200: seven histories of 40 beside one of 1,500 took 45 ms together and 72 ms parted."""
    shapes = [Shape(1, 40)] * 7 + [Shape(1, 1500)]
    cpu, gpu = (BatchCost.of(269_000_000, 46_080, on_gpu=on_gpu) for on_gpu in (False, True))
    assert len(groups_of(shapes, cpu)) == 2
    assert len(groups_of(shapes, gpu)) == 1
    assert len(groups_of([Shape(1, 40)] * 63 + [Shape(1, 1500)], gpu)) == 2
