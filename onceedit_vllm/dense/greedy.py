"""The greedy step of a dense kind: peak of the fused distribution, then the search from one column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import pad

from onceedit_vllm.dense.bounds import Side
from onceedit_vllm.dense.lines import MapLines
from onceedit_vllm.dense.peak import find_peaks
from onceedit_vllm.dense.search import FLOOR, adamw_logits, exact_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.config import FusionConfig
    from onceedit_vllm.dense.maps import DenseMap
    from onceedit_vllm.dense.pair import DenseMaps


class Found(NamedTuple):
    """What became of n rows.

    Attributes:
        searched: (n,) bool, False for a row that is left to the LLM.
        attempts: (m,) int64, for each searched row what settled its peak.
    """

    searched: Tensor
    attempts: Tensor


class DenseSearch:
    """Searches with a pair of dense maps; keeps lines of them, and nothing else, between calls."""

    def __init__(self, maps: DenseMaps, config: FusionConfig, device: torch.device) -> None:
        """Move the maps to the logits' device."""
        self.plugin, self.llm = (
            MapLines(each.to(device), min(config.line_cache_mib << 20, _dense_bytes(each) // 100))
            for each in (maps.plugin_map, maps.llm_map)
        )
        self._anchor_ids = self.llm.relative_map.anchor_ids
        self._config = config

    def search_rows_inplace(
        self, logits: Tensor, rows: Tensor, plugin_log_probs: Tensor, alpha: Tensor
    ) -> Found:
        """Replace rows by the search result; a row with bad numbers or no allowed anchor is left.

        Args:
            logits: (N, V_l), any float dtype and strides, changed in place.
            rows: (n,) int64, distinct rows.
            plugin_log_probs: (n, V_s) float32.
            alpha: (n,) float32.
        """
        llm_logits = logits.index_select(0, rows).to(torch.float32)
        open_anchors = self._at_anchors(llm_logits) != -math.inf
        normaliser = llm_logits.logsumexp(dim=1)
        good = (alpha >= 0) & (alpha <= 1) & normaliser.isfinite() & open_anchors.any(dim=1)
        good &= plugin_log_probs.amax(dim=1) < math.inf  # False for NaN as well
        plugin_probs = _fit(plugin_log_probs.exp(), self.plugin.relative_map.vocab_size)
        total = alpha * plugin_probs.sum(dim=1) + (1 - alpha)
        good &= total.isfinite() & (total > 0)
        todo = good.nonzero().squeeze(1)
        searched = torch.zeros_like(good)
        if len(todo) == 0:
            return Found(searched, todo)
        share = alpha[todo, None]
        llm_probs = (llm_logits[todo] - normaliser[todo, None]).exp_()
        sides = (
            Side(self.plugin, plugin_probs[todo].mul_(share)),
            Side(self.llm, _fit(llm_probs.mul_(1 - share), self.llm.relative_map.vocab_size)),
        )
        peaks = find_peaks(sides, open_anchors[todo], self._config.top_k)
        results, reached = self._search(peaks.coordinates, llm_logits[todo])
        done = todo[reached]
        logits.index_copy_(0, rows[done], results[reached].to(logits.dtype))
        searched[done] = True
        return Found(searched, peaks.attempts[reached])

    def bytes_held(self) -> int:
        """Bytes of the maps and of the lines kept."""
        return self.plugin.bytes_held() + self.llm.bytes_held()

    def hit_rates(self) -> dict[str, float]:
        """Share of the lines asked for that were still there, by kind of line; unused kinds are left out."""
        caches = {
            "plugin rows": self.plugin.rows,
            "plugin columns": self.plugin.columns,
            "llm rows": self.llm.rows,
            "llm columns": self.llm.columns,
        }
        return {name: c.hits / (c.hits + c.misses) for name, c in caches.items() if c.hits + c.misses}

    def _at_anchors(self, llm_logits: Tensor) -> Tensor:
        """(n, A): the logits of the anchors' own tokens, -inf for those beyond the logits' width."""
        width = llm_logits.shape[1]
        at_anchors = llm_logits.index_select(1, self._anchor_ids.clamp(max=width - 1))
        return at_anchors.masked_fill_(self._anchor_ids >= width, -math.inf)

    def _search(self, coordinates: Tensor, llm_logits: Tensor) -> tuple[Tensor, Tensor]:
        """(m,) peaks and (m, V_l) logits, which may be changed -> results, and which rows have one."""
        if self._config.solver == "exact":
            return self._exact(coordinates, llm_logits)
        allowed = llm_logits != -math.inf
        columns = self._columns(coordinates, llm_logits.shape[1])
        results = adamw_logits(
            columns,
            allowed,
            self.llm.relative_map.num_coordinates,
            steps=self._config.search_steps,
            learning_rate=self._config.search_learning_rate,
        )
        return results, ((columns > 0) & allowed).any(dim=1)

    def _exact(self, coordinates: Tensor, llm_logits: Tensor) -> tuple[Tensor, Tensor]:
        """0 at the winner and at most ``FLOOR`` elsewhere; the winner of a column is known beforehand."""
        width = llm_logits.shape[1]
        winner = self.llm.relative_map.own_token[coordinates]
        reached = winner < width
        winner = winner.clamp(max=width - 1)
        reached &= llm_logits.gather(1, winner[:, None])[:, 0] != -math.inf
        masked = (~reached).nonzero().squeeze(1)
        if len(masked):
            columns, allowed = self._columns(coordinates[masked], width), llm_logits[masked] != -math.inf
            winner[masked] = exact_tokens(columns, allowed)
            reached[masked] = ((columns > 0) & allowed).any(dim=1)
        return llm_logits.clamp_(max=FLOOR).scatter_(1, winner[:, None], 0.0), reached

    def _columns(self, coordinates: Tensor, width: int) -> Tensor:
        return _fit(self.llm.columns.get(coordinates), width)


def _dense_bytes(relative_map: DenseMap) -> int:
    """What the map would take as a float32 matrix."""
    return 4 * relative_map.vocab_size * relative_map.num_coordinates


def _fit(values: Tensor, size: int) -> Tensor:
    """Last dimension cut, or padded with zeros: padding tokens of a vocabulary carry nothing."""
    return values if values.shape[-1] == size else pad(values, (0, size - values.shape[-1]))
