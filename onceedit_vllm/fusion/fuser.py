"""Fusing rows of a batch of logits in place: what the runners call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from onceedit_vllm.dense.greedy import DenseSearch
from onceedit_vllm.fusion import textual
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.fusion.counts import ATTEMPTS, OUTCOMES, FuseCounts, Tally
from onceedit_vllm.fusion.outcome import LEFT, SEARCHED
from onceedit_vllm.fusion.owed import OwedRows, SpellingBook
from onceedit_vllm.fusion.walk import walk_each_inplace, walk_together_inplace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from onceedit_vllm.alignment.align import Alignment
    from onceedit_vllm.config import FusionConfig
    from onceedit_vllm.fusion.owed import Owed


class Fuser:
    """Fuses with one alignment. Between calls it holds tables, the lines used last, and counts.

    With textual maps nothing here waits for a GPU or has a shape that depends on data, so that a step
    can be captured in a CUDA graph once one has been made. A dense kind waits, to know which rows are
    greedy and which of them need more work.
    """

    def __init__(
        self, alignment: Alignment, config: FusionConfig, device: torch.device | str = "cpu"
    ) -> None:
        """Lay out tables and counters on the device of the logits to come."""
        device = torch.device(device)
        self._config = config
        self._carry = alignment.carry
        self._num_coordinates = alignment.report.num_coordinates
        # The one place that asks what kind it is; without a dense search all rows go the textual way.
        self._search = None if alignment.dense is None else DenseSearch(alignment.dense, config, device)
        self._fuse, self._walk = _path_of(device)
        self._outcomes, self._attempts = Tally(OUTCOMES, device), Tally(ATTEMPTS, device)
        self._carrier: Carrier | None = None
        self._widths = (0, 0)
        #: What the LLM writes in several tokens; the runner asks it what is owed.
        self.book = SpellingBook(alignment.spellings, alignment.carry)

    @torch.no_grad()
    def fuse_rows_inplace(
        self,
        logits: Tensor,
        rows: Tensor,
        plugin_log_probs: Tensor,
        alpha: Tensor,
        want_search: Tensor,
        owed: Sequence[Owed | None] | None = None,
    ) -> None:
        """Replace some rows of a batch; the others keep their bits.

        A masked token (-inf) stays masked. Probability that the plug-in gives to masked tokens, or
        to tokens without text, is dropped and the rest renormalised. A row whose numbers are bad
        (NaN, +inf, alpha outside 0..1), or of which nothing remains, is left to the LLM.

        Args:
            logits: (N, V_l) of the whole batch, any float dtype and strides, changed in place.
            rows: (n,) int64, distinct rows to replace; -1 for none.
            plugin_log_probs: (n, V_s) float32.
            alpha: (n,) float32.
            want_search: (n,) bool. True: the search result (greedy). False: log P in the LLM's
                vocabulary, by the textual map whatever the alignment's kind.
            owed: Per row, the rest of a plug-in token that the LLM writes in several tokens; the
                search over a dense kind does not know of it.
        """
        if len(rows) == 0:
            return
        device = logits.device
        rows, want_search = rows.to(device), want_search.to(device)
        log_probs, alpha = plugin_log_probs.to(device, torch.float32), alpha.to(device, torch.float32)
        if self._search is not None:
            self._search_dense(self._search, logits, rows, log_probs, alpha, want_search)
            rows = rows.masked_fill(want_search, -1)
        carrier = self._carrier_for(logits.shape[1], log_probs.shape[1], device)
        debts = None if owed is None else OwedRows.of(owed, carrier)
        outcome = self._fuse(logits, rows, log_probs, alpha, want_search, carrier, debts)
        self._outcomes.add(outcome)
        if self._search is None and self._config.solver == "adamw":
            self._walk(logits, rows, outcome == SEARCHED, self._num_coordinates, self._config)

    def counts(self) -> FuseCounts:
        """What became of all rows so far. Waits for the device."""
        return FuseCounts(**self._outcomes.read(), **self._attempts.read())

    def bytes_held(self) -> int:
        """Bytes of the tables in use."""
        carrier = sum(table.nbytes for table in self._carrier or ())
        return carrier + (0 if self._search is None else self._search.bytes_held())

    def hit_rates(self) -> dict[str, float]:
        """Of the caches of a dense kind's rows and columns."""
        return {} if self._search is None else self._search.hit_rates()

    def _search_dense(
        self,
        search: DenseSearch,
        logits: Tensor,
        rows: Tensor,
        log_probs: Tensor,
        alpha: Tensor,
        want_search: Tensor,
    ) -> None:
        """The greedy rows of a dense kind."""
        greedy = (want_search & (rows >= 0)).nonzero().squeeze(1)
        found = search.search_rows_inplace(logits, rows[greedy], log_probs[greedy], alpha[greedy])
        self._outcomes.add(torch.where(found.searched, SEARCHED, LEFT))
        self._attempts.add(found.attempts)

    def _carrier_for(self, llm_width: int, plugin_width: int, device: torch.device) -> Carrier:
        """Laid out when the widths are first seen; those of an engine stay the same."""
        if self._carrier is None or self._widths != (llm_width, plugin_width):
            carry = self._carry[:plugin_width]
            # The plug-in's logits may be padded beyond its vocabulary.
            carry = pad(carry, (0, plugin_width - len(carry)), value=-1)
            self._carrier = Carrier.of(carry, self.book.targets, llm_width, device)
            self._widths = (llm_width, plugin_width)
        return self._carrier


def _path_of(device: torch.device) -> tuple[Callable[..., Tensor], Callable[..., None]]:
    """How a device fuses rows and walks them: the one place where that is chosen. All come to the same."""
    if device.type == "cuda":
        from onceedit_vllm.fusion import kernels

        return kernels.fuse_rows_inplace, walk_together_inplace
    return textual.fuse_rows_inplace, walk_each_inplace
