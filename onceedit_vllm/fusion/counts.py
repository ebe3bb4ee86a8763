"""What became of the rows of all steps, counted where the rows are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from onceedit_vllm.dense.peak import ALL_LISTS, DENSE, FINALISTS, LISTS, ROWS
from onceedit_vllm.fusion.outcome import LEFT, SAMPLED, SEARCHED, UNCERTIFIED

if TYPE_CHECKING:
    from torch import Tensor


class FuseCounts(NamedTuple):
    """Numbers of rows since the start.

    Attributes:
        searched: Got the search result.
        sampled: Got the log of the fused distribution.
        left: Were left to the LLM: bad numbers, or nothing allowed has any probability.
        by_lists: Searched rows of a dense kind whose peak the lists of the heaviest tokens settled.
        by_all_lists: The same, by the lists of all tokens.
        by_rows: The same, by whole rows of the heaviest tokens.
        by_finalists: The same, by a few coordinates computed in full.
        dense_steps: The same, by the whole product.
        cut_certified: Searched rows whose cut list was enough to know the token.
        cut_uncertified: Rows that were not touched because their cut list was not; they come again with
            a whole one.
    """

    searched: int = 0
    sampled: int = 0
    left: int = 0
    by_lists: int = 0
    by_all_lists: int = 0
    by_rows: int = 0
    by_finalists: int = 0
    dense_steps: int = 0
    cut_certified: int = 0
    cut_uncertified: int = 0

    @property
    def certified(self) -> int:
        """Searched rows of a dense kind that did without the whole product."""
        return self.by_lists + self.by_all_lists + self.by_rows + self.by_finalists


class Tally:
    """Counts codes on a device; reading the counts is the only thing that waits for it."""

    def __init__(self, codes: dict[str, int], device: torch.device) -> None:
        """Count codes, each with the name of its field of :class:`FuseCounts`."""
        self._names = tuple(codes)
        self._codes = torch.tensor(list(codes.values()), device=device)
        self._counts = torch.zeros(len(codes), dtype=torch.int64, device=device)

    def add(self, seen: Tensor) -> None:
        """Count (n,) codes."""
        self._counts += (seen[:, None] == self._codes).sum(dim=0)

    def read(self) -> dict[str, int]:
        """The counts by name."""
        return dict(zip(self._names, self._counts.tolist(), strict=True))


OUTCOMES = {"searched": SEARCHED, "sampled": SAMPLED, "left": LEFT}
ATTEMPTS = {
    "by_lists": LISTS,
    "by_all_lists": ALL_LISTS,
    "by_rows": ROWS,
    "by_finalists": FINALISTS,
    "dense_steps": DENSE,
}
CUTS = {"cut_certified": SEARCHED, "cut_uncertified": UNCERTIFIED}
