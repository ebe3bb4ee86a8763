"""Fusing rows of a batch of logits in place: what the runners call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from onceedit_vllm.dense.greedy import DenseSearch
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.fusion import textual
from onceedit_vllm.fusion.counts import ATTEMPTS, CUTS, OUTCOMES, FuseCounts, Tally
from onceedit_vllm.fusion.outcome import LEFT, SEARCHED, UNCERTIFIED
from onceedit_vllm.fusion.walk import walk_each_inplace, walk_together_inplace

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from onceedit_vllm.alignment.align import Alignment
    from onceedit_vllm.config import FusionConfig
    from onceedit_vllm.fusion.lists import Lists


class Fuser:
    """Fuses with one alignment. Between calls it holds a dense kind's maps and lines, and counts.

    With textual maps and whole lists nothing here waits for a GPU or has a shape that depends on data, so
    that a step can be captured in a CUDA graph once one has been made. Cut lists wait, to know which of
    them were enough, and so does a dense kind, to know which rows are greedy and need more work.

    With a cut list the token of a greedy row is that of the whole list, or the row is not touched. A sampled
    row is fused with what is listed: its distribution is at most ``alpha tail / (1 - alpha + alpha q)`` from
    that of the whole list in total variation, q the mass of all allowed tokens. Where single probabilities
    matter, or tokens are masked, take whole lists.
    """

    def __init__(
        self, alignment: Alignment, config: FusionConfig, device: torch.device | str = "cpu"
    ) -> None:
        """Lay out tables and counters on the device of the logits to come."""
        device = torch.device(device)
        self._config = config
        self._num_coordinates = alignment.report.num_coordinates
        # The one place that asks what kind it is; without a dense search all rows go the textual way.
        self._search = None if alignment.dense is None else DenseSearch(alignment.dense, config, device)
        self._fuse_whole, self._walk = _path_of(device)
        self._outcomes, self._attempts, self._cuts = (
            Tally(codes, device) for codes in (OUTCOMES, ATTEMPTS, CUTS)
        )

    @torch.no_grad()
    def fuse_rows_inplace(
        self,
        logits: Tensor,
        rows: Tensor,
        lists: Lists,
        alpha: Tensor,
        want_search: Tensor,
        plugin_log_probs: Tensor | None = None,
    ) -> list[int]:
        """Replace some rows of a batch; the others keep their bits.

        A masked token (-inf) stays masked; the plug-in's probability there is dropped, the rest renormalised.
        A row of bad numbers (NaN, +inf, alpha outside 0..1), or of which nothing remains, is left to the LLM.

        Args:
            logits: (N, V_l) of the whole batch, any float dtype and strides, changed in place.
            rows: (n,) int64, distinct rows to replace; -1 for none.
            lists: (n, k); whole ones with their tokens in the same memory at every step, as a carrier's.
            alpha: (n,) float32.
            want_search: (n,) bool. True: the search result (greedy). False: log P, whatever the kind.
            plugin_log_probs: (n, V_s) float32, what a dense kind searches with, without what is owed.

        Returns:
            Entries (indices of ``rows``) that were not touched: their cut list was not enough.

        Raises:
            BadInputError: A dense kind was given cut lists, or no ``plugin_log_probs``.
        """
        self._check(lists, plugin_log_probs)
        if len(rows) == 0:
            return []
        rows, alpha, want_search = (part.to(logits.device) for part in (rows, alpha.float(), want_search))
        if self._search is not None and plugin_log_probs is not None:
            self._search_dense(self._search, logits, rows, plugin_log_probs, alpha, want_search)
            rows = rows.masked_fill(want_search, -1)
        fuse = self._fuse_whole if lists.whole else textual.fuse_rows_inplace
        outcome = fuse(logits, rows, lists.to(logits.device), alpha, want_search)
        self._finish(logits, rows, outcome)
        return [] if lists.whole else self._uncertified(outcome)

    def counts(self) -> FuseCounts:
        """What became of all rows so far. Waits for the device."""
        return FuseCounts(**self._outcomes.read(), **self._attempts.read(), **self._cuts.read())

    def bytes_held(self) -> int:
        """Bytes of a dense kind's maps and lines."""
        return 0 if self._search is None else self._search.bytes_held()

    def hit_rates(self) -> dict[str, float]:
        """Of the caches of a dense kind's rows and columns."""
        return {} if self._search is None else self._search.hit_rates()

    def _check(self, lists: Lists, plugin_log_probs: Tensor | None) -> None:
        if self._search is None:
            return
        if not lists.whole:
            raise BadInputError("a dense kind was given cut lists: its greedy rows need all that was said")
        if plugin_log_probs is None:
            raise BadInputError("a dense kind needs plugin_log_probs, the plug-in's own distribution")

    def _search_dense(
        self,
        search: DenseSearch,
        logits: Tensor,
        rows: Tensor,
        plugin_log_probs: Tensor,
        alpha: Tensor,
        want_search: Tensor,
    ) -> None:
        """The greedy rows of a dense kind."""
        log_probs = plugin_log_probs.to(logits.device, torch.float32)
        greedy = (want_search & (rows >= 0)).nonzero().squeeze(1)
        found = search.search_rows_inplace(logits, rows[greedy], log_probs[greedy], alpha[greedy])
        self._outcomes.add(torch.where(found.searched, SEARCHED, LEFT))
        self._attempts.add(found.attempts)

    def _finish(self, logits: Tensor, rows: Tensor, outcome: Tensor) -> None:
        """Count what became of the rows, and walk where the paper's iterate is asked for."""
        self._outcomes.add(outcome)
        if self._search is None and self._config.solver == "adamw":
            self._walk(logits, rows, outcome == SEARCHED, self._num_coordinates, self._config)

    def _uncertified(self, outcome: Tensor) -> list[int]:
        """Entries whose cut list was not enough; counts them, and those whose list was."""
        self._cuts.add(outcome)
        return (outcome == UNCERTIFIED).nonzero().squeeze(1).tolist()


def _path_of(device: torch.device) -> tuple[Callable[..., Tensor], Callable[..., None]]:
    """How a device fuses whole lists and walks rows: the one place where that is chosen.

    All come to the same.
    """
    if device.type == "cuda":
        from onceedit_vllm.fusion import kernels

        return kernels.fuse_rows_inplace, walk_together_inplace
    return textual.fuse_rows_inplace, walk_each_inplace
