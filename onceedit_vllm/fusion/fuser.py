"""Fusing rows of a batch of logits in place: what the runners call."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import pad

from onceedit_vllm.alignment.dense import DenseMap
from onceedit_vllm.fusion.project import fused_peak
from onceedit_vllm.fusion.search import FLOOR, search_columns

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.align import Alignment
    from onceedit_vllm.config import FusionConfig


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

    sources: Tensor  # (m,) plug-in tokens that have a place in the LLM's vocabulary
    targets: Tensor  # (m,) that place
    anchor_llm_ids: Tensor
    maps: tuple[DenseMap, DenseMap] | None


class Fuser:
    """Fuses with one alignment. Holds no state between calls but tables per device."""

    def __init__(self, alignment: Alignment, config: FusionConfig) -> None:
        """Keep the alignment; its tables move to the logits' device on first use."""
        self._alignment = alignment
        self._config = config
        self._tables: dict[tuple[torch.device, int, int], _Tables] = {}

    @torch.no_grad()
    def fuse_rows_inplace(
        self, logits: Tensor, rows: Tensor, plugin_log_probs: Tensor, alpha: Tensor, want_search: Tensor
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

        Returns:
            Counts of what was done; they sum up over calls.
        """
        device = logits.device
        rows, alpha, want_search = rows.to(device), alpha.to(device), want_search.to(device)
        if len(rows) == 0:
            return FuseCounts()
        log_probs = plugin_log_probs.to(device, torch.float32)
        tables = self._tables_for(device, logits.shape[1], log_probs.shape[1])
        own = logits.index_select(0, rows).to(torch.float32)
        allowed = own != -math.inf
        plugin_probs, llm_probs = log_probs.exp(), own.softmax(dim=1)
        fused, good = _fuse_textual(tables, plugin_probs, llm_probs, alpha, allowed)
        good &= ~(log_probs.isnan() | (log_probs == math.inf)).any(dim=1)
        good &= (alpha >= 0) & (alpha <= 1)
        results = fused.log().clamp_(min=FLOOR).masked_fill_(~allowed, -math.inf)

        certified = 0
        searching = (good & want_search).nonzero().squeeze(1)
        if len(searching):
            columns, certified = self._columns(
                tables, searching, fused, plugin_probs, llm_probs, alpha, allowed
            )
            open_to = allowed[searching]
            reached = ((columns > 0) & open_to).any(dim=1)
            good[searching[~reached]] = False
            coordinates = self._alignment.llm_map.num_coordinates
            results[searching] = search_columns(columns, open_to, coordinates, self._config)
        logits.index_copy_(0, rows[good], results[good].to(logits.dtype))
        searched, sampled = int((good & want_search).sum()), int((good & ~want_search).sum())
        return FuseCounts(
            searched=searched,
            sampled=sampled,
            left=len(rows) - searched - sampled,
            certified=certified,
            dense_steps=len(searching) - certified if tables.maps else 0,
        )

    def _columns(
        self,
        tables: _Tables,
        searching: Tensor,
        fused: Tensor,
        plugin_probs: Tensor,
        llm_probs: Tensor,
        alpha: Tensor,
        allowed: Tensor,
    ) -> tuple[Tensor, int]:
        """R_l[:, a*] of each searching row, (k, V_l), and how many of them were certified."""
        columns = torch.zeros_like(fused[searching])
        if tables.maps is None:
            # Textual: coordinates are the LLM's own tokens, and every column is one-hot.
            return columns.scatter_(1, fused[searching].argmax(dim=1, keepdim=True), 1.0), 0
        plugin_map, llm_map = tables.maps
        certified = 0
        for place, row in enumerate(searching.tolist()):
            open_anchors = allowed[row, tables.anchor_llm_ids]
            if not bool(open_anchors.any()):
                continue  # an empty column: the row is left to the LLM
            peak = fused_peak(
                plugin_map,
                llm_map,
                _fit(alpha[row] * plugin_probs[row], plugin_map.vocab_size),
                _fit((1 - alpha[row]) * llm_probs[row], llm_map.vocab_size),
                open_anchors,
            )
            certified += peak.certified
            column = llm_map.columns(torch.tensor([peak.coordinate], device=columns.device))[0]
            columns[place] = _fit(column, columns.shape[1])
        return columns, certified

    def _tables_for(self, device: torch.device, llm_width: int, plugin_width: int) -> _Tables:
        key = (device, llm_width, plugin_width)
        if key not in self._tables:
            alignment = self._alignment
            carry = alignment.carry[:plugin_width]
            sources = ((carry >= 0) & (carry < llm_width)).nonzero().squeeze(1)
            maps = None
            if isinstance(alignment.plugin_map, DenseMap) and isinstance(alignment.llm_map, DenseMap):
                maps = (alignment.plugin_map.to(device), alignment.llm_map.to(device))
            anchors = alignment.anchors.llm_ids
            self._tables[key] = _Tables(
                sources=sources.to(device),
                targets=carry[sources].to(device),
                anchor_llm_ids=anchors.clamp(max=llm_width - 1).to(device),
                maps=maps,
            )
        return self._tables[key]


def _fuse_textual(
    tables: _Tables, plugin_probs: Tensor, llm_probs: Tensor, alpha: Tensor, allowed: Tensor
) -> tuple[Tensor, Tensor]:
    """P over the LLM's vocabulary, (n, V_l), and which rows it is a distribution in, (n,) bool."""
    weight = alpha[:, None]
    fused = (1 - weight) * llm_probs
    targets = tables.targets.expand(len(fused), -1)
    fused.scatter_add_(1, targets, weight * plugin_probs[:, tables.sources])
    fused.masked_fill_(~allowed, 0.0)
    total = fused.sum(dim=1, keepdim=True)
    good = total.isfinite() & (total > 0)
    return fused.div_(total), good.squeeze(1)


def _fit(vector: Tensor, size: int) -> Tensor:
    """Cut, or padded with zeros, to a size: padding tokens of a vocabulary carry nothing."""
    return pad(vector, (0, size - len(vector)))
