"""Lists of LLM tokens with the plug-in's probability on each: what one side of fusion hands to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import pad

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.largest import top_k

if TYPE_CHECKING:
    from torch import Tensor

#: Tokens that a row is cut to where its tail allows it, the tail allowed, and the most tokens all the same.
NUM_LISTED, LARGEST_TAIL, CAP = 64, 1e-4, 1024

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


def cut(lists: Lists, k: int = NUM_LISTED, tail: float = LARGEST_TAIL, cap: int = CAP) -> Lists:
    """Keep the tokens of most mass: k of each row, or 2 k, 4 k, ... until what is cut is little.

    Waits for the device that holds the lists.

    Args:
        lists: Whole or cut ones.
        k: Tokens of a row at first. Lists that are no longer come back as they are.
        tail: A row is widened until less than this is cut from it,
        cap: or until it has so many tokens.

    Returns:
        As many columns as the longest row needs. ``tail`` is rounded up, never down.

    Raises:
        BadInputError: ``k`` is not between 1 and ``cap``.
    """
    if not 1 <= k <= cap:
        raise BadInputError(f"cut(k={k}, cap={cap}): take a k of at least 1 and a cap of at least k")
    if k >= lists.mass.shape[1]:
        return lists
    kept = _heaviest(lists, k)
    wide = (kept.tail >= tail).nonzero().squeeze(1)  # False for NaN
    if k == cap or len(wide) == 0:
        return kept
    wider = cut(lists.take(wide), min(2 * k, cap), tail, cap)
    missing = wider.ids.shape[1] - k
    ids, mass = pad(kept.ids, (0, missing), value=-1), pad(kept.mass, (0, missing))
    ids[wide], mass[wide], kept.tail[wide] = wider.ids, wider.mass, wider.tail
    return Lists(ids, mass, kept.tail, False)


def _heaviest(lists: Lists, k: int) -> Lists:
    """The k tokens of most mass of each row; the sum of the others goes to the tail."""
    slots = top_k(lists.mass, k)[1].sort(dim=1).values
    others = lists.mass.scatter(1, slots, 0.0)
    tail = (others.sum(dim=1, dtype=torch.float64) + lists.tail) * _ROUNDING_UP
    return Lists(lists.ids.gather(1, slots), lists.mass.gather(1, slots), tail.to(torch.float32), False)
