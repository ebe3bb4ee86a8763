"""Which blocks of tokens are known, found by their tokens and by all tokens before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Tokens per block.
BLOCK = 16
#: The node before the first block of every text.
ROOT = 0


class Known(NamedTuple):
    """A known block.

    Attributes:
        node: Stands for the block's tokens and all before them; never given out twice.
        place: Where the block is.
    """

    node: int
    place: int


class PrefixIndex:
    """A chain of hashes: a block is found by the node before it and its own tokens.

    The tokens themselves are part of the key, so that two texts whose hashes agree are told apart.

    Args:
        first_node: Nodes are counted from here.

    Attributes:
        next_node: No node from here on was given out.
    """

    def __init__(self, first_node: int = ROOT + 1) -> None:
        self.next_node = first_node
        self._known: dict[tuple[int, tuple[int, ...]], Known] = {}
        self._keys: dict[int, tuple[int, tuple[int, ...]]] = {}

    def __contains__(self, place: int) -> bool:
        """Whether a known block is there."""
        return place in self._keys

    def match(self, token_ids: Sequence[int], after: int = ROOT) -> list[Known]:
        """The longest known row of full blocks at the start of `token_ids`, behind the node `after`."""
        found: list[Known] = []
        for start in range(0, len(token_ids) - BLOCK + 1, BLOCK):
            known = self._known.get((after, tuple(token_ids[start : start + BLOCK])))
            if known is None:
                break
            found.append(known)
            after = known.node
        return found

    def add(self, after: int, token_ids: Sequence[int], place: int) -> int:
        """Make a block known, unless its like is, and return its node.

        Args:
            after: The node of the block before it.
            token_ids: Its :data:`BLOCK` tokens.
            place: Where it is.
        """
        key = (after, tuple(token_ids))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Known(self.next_node, place)
            self._keys[place] = key
            self.next_node += 1
        return known.node

    def forget(self, place: int) -> None:
        """The block there is about to be overwritten."""
        del self._known[self._keys.pop(place)]
