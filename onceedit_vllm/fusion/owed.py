"""What the plug-in still owes: the rest of a token that the LLM writes in several tokens.

The plug-in meant `` Tarsk``, the LLM has only `` T`` and ``arsk``, and `` T`` has been written. Seen from
the new text alone the plug-in might go on differently, so its distribution *before* `` T`` is consulted
again: of the tokens that begin with what was written since, some end there and some go on. The
next-token distribution is the mixture of both, which is the plug-in's distribution over byte strings
as far as one of its tokens reaches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.spelling import Spellings

#: Below this probability the plug-in did not mean the token in question; noise must not be completed.
LEAST = 0.01


class Owed(NamedTuple):
    """The unfinished part of the plug-in's distribution, in LLM tokens.

    Attributes:
        ids: (k,) int64, LLM tokens that continue, not necessarily distinct.
        probs: (k,) float32, sums to 1.
        weight: Probability that the plug-in's token goes on rather than ended.
    """

    ids: Tensor
    probs: Tensor
    weight: float


class SpellingBook:
    """Finds what is owed after the LLM tokens written last.

    Args:
        spellings: Plug-in tokens that the LLM writes in several tokens.
        carry: (V_s,) int64, first LLM token of each plug-in token.
    """

    def __init__(self, spellings: Spellings, carry: Tensor) -> None:
        """Index every proper beginning of every spelling."""
        self._going_on: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        self._ending: dict[tuple[int, ...], list[int]] = {}
        for token, ids in spellings.as_lists().items():
            for size in range(1, len(ids)):
                self._going_on.setdefault(tuple(ids[:size]), []).append((token, ids[size]))
            self._ending.setdefault(tuple(ids), []).append(token)
        self._single = carry.clone()
        self._single[spellings.tokens] = -1
        #: How many tokens back a spelling can begin.
        self.reach = max(map(len, self._going_on), default=0)
        continuing = {llm for pairs in self._going_on.values() for _, llm in pairs}
        self.targets = torch.tensor(sorted(continuing), dtype=torch.int64)

    def owed(self, written: Sequence[int], before: Callable[[int], Tensor | None]) -> Owed | None:
        """What is owed now.

        Args:
            written: LLM tokens written last, at least ``reach`` of them where there are as many.
            before: The plug-in's log-probabilities, (V_s,), before the last k written tokens; None
                where it was not asked then.
        """
        for size in range(min(self.reach, len(written)), 0, -1):
            path = tuple(written[-size:])
            pairs = self._going_on.get(path)
            log_probs = before(size) if pairs else None
            if pairs is None or log_probs is None:
                continue
            sources, targets = torch.tensor(pairs, device=log_probs.device).unbind(1)
            probs = log_probs[sources].exp()
            total = float(probs.sum())
            if total >= LEAST:
                return Owed(targets, probs / total, total / (total + self._ended(path, log_probs)))
        return None

    def _ended(self, path: tuple[int, ...], log_probs: Tensor) -> float:
        """Probability of the tokens that end exactly with the path."""
        tokens = torch.tensor(self._ending.get(path, []), dtype=torch.int64, device=log_probs.device)
        ended = float(log_probs[tokens].exp().sum())
        if len(path) == 1:
            single = self._single.to(log_probs.device) == path[0]
            ended += float(log_probs[: len(single)][single].exp().sum())
        return ended


def owe_inplace(carried: Tensor, targets: Tensor, owed: Sequence[Owed | None]) -> None:
    """Mix what is owed into carried distributions.

    Args:
        carried: (n, u) float32, the plug-in's distributions at ``targets``, changed in place.
        targets: (u,) int64, ascending LLM tokens.
        owed: One entry per row.
    """
    for row, debt in zip(carried, owed, strict=True):
        if debt is None:
            continue
        places = torch.searchsorted(targets, debt.ids.to(targets.device)).clamp_(max=len(targets) - 1)
        known = targets[places] == debt.ids.to(targets.device)
        row.mul_(1 - debt.weight)
        row.index_add_(0, places[known], debt.weight * debt.probs.to(row.device)[known])
