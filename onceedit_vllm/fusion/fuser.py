"""Fusing rows of a batch of logits in place: what the runners call."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import pad

from onceedit_vllm.alignment.dense import DenseMap
from onceedit_vllm.fusion.owed import SpellingBook
from onceedit_vllm.fusion.project import fused_peak
from onceedit_vllm.fusion.search import search_columns
from onceedit_vllm.fusion.textual import Carrier, fuse_textual_inplace, keep_winner_inplace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from onceedit_vllm.alignment.align import Alignment
    from onceedit_vllm.config import FusionConfig
    from onceedit_vllm.fusion.owed import Owed


class FuseCounts(NamedTuple):
    """What became of the rows of one call.

    Attributes:
        searched: Rows that got the search result.
        sampled: Rows that got the log of the fused distribution.
        left: Rows left to the LLM: bad numbers, or nothing allowed has any probability.
        certified: Searched rows of a dense kind whose coordinate a few rows of R made certain.
        dense_steps: Searched rows of a dense kind that took the whole product.
    """

    searched: int = 0
    sampled: int = 0
    left: int = 0
    certified: int = 0
    dense_steps: int = 0


class _Tables(NamedTuple):
    """The alignment on one device, for logits of one width."""

    carrier: Carrier
    anchor_llm_ids: Tensor
    maps: tuple[DenseMap, DenseMap] | None


class _Searched(NamedTuple):
    logits: Tensor  # (k, V_l)
    reached: Tensor  # (k,) bool, rows with something to find
    certified: int


class Fuser:
    """Fuses with one alignment. Holds no state between calls but tables per device."""

    def __init__(self, alignment: Alignment, config: FusionConfig) -> None:
        """Keep the alignment; its tables move to the logits' device on first use."""
        self._alignment = alignment
        self._config = config
        self._tables: dict[tuple[torch.device, int, int], _Tables] = {}
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
    ) -> FuseCounts:
        """Replace some rows of a batch; the others keep their bits.

        A masked token (-inf) stays masked. Probability that the plug-in gives to masked tokens, or
        to tokens without text, is dropped and the rest renormalised. A row whose numbers are bad
        (NaN, +inf, alpha outside 0..1), or of which nothing remains, is left to the LLM.

        Args:
            logits: (N, V_l) float32 of the whole batch, any strides, changed in place.
            rows: (n,) int64, distinct rows to replace.
            plugin_log_probs: (n, V_s) float32.
            alpha: (n,) float32.
            want_search: (n,) bool. True: the search result (greedy). False: log P in the LLM's
                vocabulary, by the textual map whatever the alignment's kind.
            owed: Per row, the rest of a plug-in token that the LLM writes in several tokens; the
                search over a dense kind does not know of it.

        Returns:
            Counts of what was done; they sum up over calls.
        """
        if len(rows) == 0:
            return FuseCounts()
        device = logits.device
        rows, want_search = rows.to(device), want_search.to(device)
        log_probs, alpha = plugin_log_probs.to(device, torch.float32), alpha.to(device, torch.float32)
        tables = self._tables_for(device, logits.shape[1], log_probs.shape[1])

        results = logits.index_select(0, rows).to(torch.float32)
        good = fuse_textual_inplace(results, log_probs, alpha, tables.carrier, owed)
        searching = (good & want_search).nonzero().squeeze(1)
        certified = 0
        if len(searching):
            llm_logits = logits.index_select(0, rows[searching]) if tables.maps else None
            found = self._search(
                tables, _take(results, searching), llm_logits, log_probs[searching], alpha[searching]
            )
            results = _put(results, searching, found.logits)
            good[searching] &= found.reached
            certified = found.certified
        if bool(good.all()):
            logits.index_copy_(0, rows, results.to(logits.dtype))
        else:
            logits.index_copy_(0, rows[good], results[good].to(logits.dtype))
        searched, sampled = int((good & want_search).sum()), int((good & ~want_search).sum())
        return FuseCounts(
            searched=searched,
            sampled=sampled,
            left=len(rows) - searched - sampled,
            certified=certified,
            dense_steps=searched - certified if tables.maps else 0,
        )

    def _search(
        self,
        tables: _Tables,
        fused: Tensor,
        llm_logits: Tensor | None,
        plugin_log_probs: Tensor,
        alpha: Tensor,
    ) -> _Searched:
        """The search result of k rows; ``fused`` is their log P, (k, V_l), and may be changed."""
        everywhere = torch.ones(len(fused), dtype=torch.bool, device=fused.device)
        if tables.maps is None and self._config.solver == "exact":
            return _Searched(keep_winner_inplace(fused), everywhere, 0)
        allowed = fused != -math.inf
        if tables.maps is None or llm_logits is None:
            # Textual: coordinates are the LLM's own tokens, and every column is one-hot.
            winner = fused.argmax(dim=1, keepdim=True)
            columns, certified = torch.zeros_like(fused).scatter_(1, winner, 1.0), 0
        else:
            columns, certified = _dense_columns(tables, llm_logits, plugin_log_probs, alpha, allowed)
            everywhere = ((columns > 0) & allowed).any(dim=1)
        coordinates = self._alignment.llm_map.num_coordinates
        return _Searched(search_columns(columns, allowed, coordinates, self._config), everywhere, certified)

    def _tables_for(self, device: torch.device, llm_width: int, plugin_width: int) -> _Tables:
        key = (device, llm_width, plugin_width)
        if key not in self._tables:
            alignment = self._alignment
            maps = None
            if isinstance(alignment.plugin_map, DenseMap) and isinstance(alignment.llm_map, DenseMap):
                maps = (alignment.plugin_map.to(device), alignment.llm_map.to(device))
            self._tables[key] = _Tables(
                carrier=Carrier.of(alignment.carry[:plugin_width], self.book.targets, llm_width, device),
                anchor_llm_ids=alignment.anchors.llm_ids.to(device),
                maps=maps,
            )
        return self._tables[key]


def _dense_columns(
    tables: _Tables, llm_logits: Tensor, plugin_log_probs: Tensor, alpha: Tensor, allowed: Tensor
) -> tuple[Tensor, int]:
    """R_l[:, a*] of each row, (k, V_l), and how many a* were certified.

    A row in which no anchor's own token is allowed gets an empty column.
    """
    assert tables.maps is not None
    plugin_map, llm_map = tables.maps
    width = llm_logits.shape[1]
    plugin_probs, llm_probs = plugin_log_probs.exp(), llm_logits.to(torch.float32).softmax(dim=1)
    columns = torch.zeros_like(llm_probs)
    open_anchors = _fit(allowed, llm_map.vocab_size)[:, tables.anchor_llm_ids]
    certified = 0
    for row in range(len(columns)):
        if not bool(open_anchors[row].any()):
            continue
        peak = fused_peak(
            plugin_map,
            llm_map,
            _fit(alpha[row] * plugin_probs[row], plugin_map.vocab_size),
            _fit((1 - alpha[row]) * llm_probs[row], llm_map.vocab_size),
            open_anchors[row],
        )
        certified += peak.certified
        column = llm_map.columns(torch.tensor([peak.coordinate], device=columns.device))[0]
        columns[row] = _fit(column, width)
    return columns, certified


def _fit(values: Tensor, size: int) -> Tensor:
    """Last dimension cut, or padded with zeros: padding tokens of a vocabulary carry nothing."""
    return pad(values, (0, size - values.shape[-1]))


def _take(results: Tensor, places: Tensor) -> Tensor:
    return results if len(places) == len(results) else results[places]


def _put(results: Tensor, places: Tensor, values: Tensor) -> Tensor:
    return values if len(places) == len(results) else results.index_copy_(0, places, values)
