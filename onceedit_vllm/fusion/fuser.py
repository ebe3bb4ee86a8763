"""Fusing rows of a batch of logits in place: what the runners call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from onceedit_vllm.alignment.dense import DenseMap
from onceedit_vllm.fusion import textual
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.fusion.counts import ATTEMPTS, OUTCOMES, FuseCounts, Tally
from onceedit_vllm.fusion.dense import DenseSearch
from onceedit_vllm.fusion.outcome import SEARCHED
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

    def __init__(self, alignment: Alignment, config: FusionConfig) -> None:
        """Keep the alignment; its tables move to the logits' device on first use."""
        self._alignment = alignment
        self._config = config
        self._carriers: dict[tuple[torch.device, int, int], Carrier] = {}
        self._searches: dict[torch.device, DenseSearch] = {}
        self._outcomes: dict[torch.device, Tally] = {}
        self._attempts: dict[torch.device, Tally] = {}
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
        outcomes = self._tally(self._outcomes, OUTCOMES, device)
        search = self._search_on(device)
        if search is not None:
            outcomes.add(self._search_dense(search, logits, rows, log_probs, alpha, want_search))
            rows = rows.masked_fill(want_search, -1)
        carrier = self._carrier(device, logits.shape[1], log_probs.shape[1])
        debts = None if owed is None else OwedRows.of(owed, carrier)
        fuse, walk = _path_of(device)
        outcome = fuse(logits, rows, log_probs, alpha, want_search, carrier, debts)
        outcomes.add(outcome)
        if search is None and self._config.solver == "adamw":
            walk(logits, rows, outcome == SEARCHED, self._alignment.llm_map.num_coordinates, self._config)

    def counts(self) -> FuseCounts:
        """What became of all rows so far. Waits for the devices."""
        total = dict.fromkeys(FuseCounts._fields, 0)
        for tally in (*self._outcomes.values(), *self._attempts.values()):
            for name, count in tally.read().items():
                total[name] += count
        return FuseCounts(**total)

    def bytes_held(self) -> int:
        """Bytes of the tables in use, on all devices."""
        carriers = sum(t.numel() * t.element_size() for c in self._carriers.values() for t in c)
        return carriers + sum(search.bytes_held() for search in self._searches.values())

    def hit_rates(self) -> dict[torch.device, dict[str, float]]:
        """Of the caches of a dense kind's rows and columns, by device."""
        return {device: search.hit_rates() for device, search in self._searches.items()}

    def _search_dense(
        self,
        search: DenseSearch,
        logits: Tensor,
        rows: Tensor,
        log_probs: Tensor,
        alpha: Tensor,
        want_search: Tensor,
    ) -> Tensor:
        """The greedy rows of a dense kind; their outcomes."""
        greedy = (want_search & (rows >= 0)).nonzero().squeeze(1)
        found = search.search_rows_inplace(logits, rows[greedy], log_probs[greedy], alpha[greedy])
        self._tally(self._attempts, ATTEMPTS, logits.device).add(found.attempts)
        return found.outcome

    @staticmethod
    def _tally(tallies: dict[torch.device, Tally], codes: dict[str, int], device: torch.device) -> Tally:
        if device not in tallies:
            tallies[device] = Tally(codes, device)
        return tallies[device]

    def _search_on(self, device: torch.device) -> DenseSearch | None:
        plugin_map, llm_map = self._alignment.plugin_map, self._alignment.llm_map
        if not isinstance(plugin_map, DenseMap) or not isinstance(llm_map, DenseMap):
            return None
        if device not in self._searches:
            self._searches[device] = DenseSearch(plugin_map, llm_map, self._config, device)
        return self._searches[device]

    def _carrier(self, device: torch.device, llm_width: int, plugin_width: int) -> Carrier:
        key = (device, llm_width, plugin_width)
        if key not in self._carriers:
            carry = self._alignment.carry[:plugin_width]
            # The plug-in's logits may be padded beyond its vocabulary.
            carry = pad(carry, (0, plugin_width - len(carry)), value=-1)
            self._carriers[key] = Carrier.of(carry, self.book.targets, llm_width, device)
        return self._carriers[key]


def _path_of(device: torch.device) -> tuple[Callable[..., Tensor], Callable[..., None]]:
    """How a device fuses rows and walks them: the one place where that is chosen. All come to the same."""
    if device.type == "cuda":
        from onceedit_vllm.fusion import kernels

        return kernels.fuse_rows_inplace, walk_together_inplace
    return textual.fuse_rows_inplace, walk_each_inplace
