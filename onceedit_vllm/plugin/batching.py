"""Which texts a pass of the model reads together.

One pass reads the weights once for all its rows, but pads them: every row costs as many new tokens as the
one with the most, and as many columns of keys and values as the longest text. So rows are parted where
padding would cost more than another pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: New tokens that a CPU reads in the time in which it fetches a model's weights: what a core computes while
#: one byte comes from memory decides. On 2 cores with AVX2 SmolLM2-135M takes 51 ms for one token behind 200,
#: and 1.9 ms a token for a prompt of 512.
PASS_TOKENS = 24
#: How often the keys and values of a column go over the memory bus in a step: read and written to gather
#: them, read to attend to them.
COLUMN_TRIPS = 3
#: The same on a GPU, where launching a pass takes the time, by its layers and not by its weights: on an H200
#: some 28 ms of SmolLM2-135M's 30, a token of a prompt 0.007 ms, a column of 46,080 bytes 0.0013 ms.
GPU_PASS_TOKENS, GPU_COLUMN_TOKENS_PER_BYTE = 4000, 4e-6


class Shape(NamedTuple):
    """A text in a step: tokens to read, and tokens there are then."""

    num_new: int
    length: int


class BatchCost(NamedTuple):
    """What a pass costs, in the time that one token takes to be read beside many others.

    Attributes:
        per_pass: Fetching the weights, or launching what is done with them.
        per_column: Keys and values of one column of one row.
    """

    per_pass: float
    per_column: float

    @classmethod
    def of(cls, weight_bytes: int, column_bytes: int, *, on_gpu: bool = False) -> BatchCost:
        """Of a model with so many bytes of weights, and of keys and values per token."""
        if on_gpu:
            return cls(GPU_PASS_TOKENS, GPU_COLUMN_TOKENS_PER_BYTE * column_bytes)
        return cls(PASS_TOKENS, PASS_TOKENS * COLUMN_TRIPS * column_bytes / weight_bytes)

    def of_batch(self, num_rows: int, num_new: int, length: int) -> float:
        """Of one pass over rows padded to so many new tokens and to that length."""
        return self.per_pass + num_rows * (num_new + self.per_column * length)


def grouped(shapes: Sequence[Shape], cost: BatchCost, max_tokens: int) -> Iterator[list[int]]:
    """Places of the texts, pass by pass.

    Args:
        shapes: The texts.
        cost: What a pass costs.
        max_tokens: New tokens of a pass, padding included, at most; one text is always taken whole.
    """
    pending = [list(range(len(shapes)))] if shapes else []
    while pending:
        group = pending.pop()
        parts = _best_cut(group, shapes, cost)
        if parts is not None:
            pending += parts
            continue
        size = max(1, max_tokens // max(shapes[i].num_new for i in group))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _best_cut(group: list[int], shapes: Sequence[Shape], cost: BatchCost) -> list[list[int]] | None:
    """The two halves that cost least, when they cost less than the group; cut by new tokens or by length.

    If no single cut saves anything, then several of the same order do not either: the first rows of each
    are padded by less than by the single cut there.
    """
    num_new, length = (max(shapes[i][axis] for i in group) for axis in (0, 1))
    best, halves = cost.of_batch(len(group), num_new, length), None
    for axis in (0, 1):
        if len({shapes[i][axis] for i in group}) == 1:
            continue
        order = sorted(group, key=lambda i: shapes[i][axis])
        for cut, together in _cut_costs([shapes[i] for i in order], cost):
            if together < best:
                best, halves = together, [order[:cut], order[cut:]]
    return halves


def _cut_costs(shapes: Sequence[Shape], cost: BatchCost) -> Iterator[tuple[int, float]]:
    """What cutting before each place costs, both sides together."""
    after = [shapes[-1]]
    for shape in reversed(shapes[1:-1]):
        after.append(_padded(shape, after[-1]))
    before = shapes[0]
    for cut in range(1, len(shapes)):
        rest = after[-cut]
        yield cut, cost.of_batch(cut, *before) + cost.of_batch(len(shapes) - cut, *rest)
        before = _padded(before, shapes[cut])


def _padded(first: Shape, other: Shape) -> Shape:
    return Shape(max(first.num_new, other.num_new), max(first.length, other.length))
