"""Lists of LLM tokens with the plug-in's probability on each: what one side of fusion hands to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.largest import top_k

if TYPE_CHECKING:
    from torch import Tensor

#: Tokens that a row is cut to.
NUM_LISTED = 64

# More than a sum in float64 and its rounding to float32 can lose, relative to the result.
_ROUNDING_UP = 1 + 2**-20


class Lists(NamedTuple):
    """The plug-in's next-token distributions in LLM tokens; what it owes is in them already.

    Attributes:
        ids: (n, k) int64, distinct LLM tokens, ascending within a row; -1 behind them fills up.
        mass: (n, k) float32, the plug-in's probability on each; 0 where ``ids`` is -1.
        tail: (n,) float32, at least the probability on all tokens that are not listed, none of which has
            more than the smallest one listed. NaN for a row whose numbers are bad: it says nothing.
        whole: Every token that the plug-in can say is listed. Then all rows of ``ids`` are the same and
            without -1 (one row of memory, of stride 0), and ``tail`` is 0.
    """

    ids: Tensor
    mass: Tensor
    tail: Tensor
    whole: bool

    def to(self, device: torch.device) -> Lists:
        """The same on another device; of the tokens of whole lists one row travels."""
        ids = self.ids
        if ids.device != device:
            ids = ids[:1].to(device).expand(len(ids), -1) if self.whole else ids.to(device)
        return Lists(ids, self.mass.to(device), self.tail.to(device), self.whole)

    def take(self, entries: Tensor) -> Lists:
        """Some rows, by (m,) int64 entries; the tokens of whole lists stay where they are in memory."""
        ids = self.ids[:1].expand(len(entries), -1) if self.whole else self.ids[entries]
        return Lists(ids, self.mass[entries], self.tail[entries], self.whole)


def cut(lists: Lists, k: int = NUM_LISTED) -> Lists:
    """Keep the k tokens of most mass of each row; all that is cut goes to the tail, rounded up.

    Not more where a row is flat: finding its heaviest thousand takes longer than to send it whole.

    Args:
        lists: Whole or cut ones. Those that are no longer come back as they are.
        k: Tokens of a row.

    Raises:
        BadInputError: ``k`` is not at least 1.
    """
    if k < 1:
        raise BadInputError(f"cut(k={k}): take a k of at least 1")
    return lists if k >= lists.mass.shape[1] else _heaviest(lists, k)


def _heaviest(lists: Lists, k: int) -> Lists:
    """The k tokens of most mass of each row; the sum of the others goes to the tail."""
    slots = top_k(lists.mass, k)[1].sort(dim=1).values
    others = lists.mass.scatter(1, slots, 0.0)
    tail = (others.sum(dim=1, dtype=torch.float64) + lists.tail) * _ROUNDING_UP
    return Lists(lists.ids.gather(1, slots), lists.mass.gather(1, slots), tail.to(torch.float32), False)
