"""What the plug-in still owes: the rest of a token that the LLM writes in several tokens.

The plug-in meant `` Tarsk``, the LLM has only `` T`` and ``arsk``, and `` T`` has been written. Seen from
the new text alone the plug-in might go on differently, so its distribution *before* `` T`` is consulted
again: of the tokens that begin with what was written since, some end there and some go on. The
next-token distribution is the mixture of both, which is the plug-in's distribution over byte strings
as far as one of its tokens reaches.

Which tokens could be owed is known from the text alone; how much of them is decided on the device that
holds the plug-in's distribution, so that nothing here waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from cachetools import LRUCache
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.alignment.spelling import Spellings
    from onceedit_vllm.fusion.carry_layout import CarryLayout

#: Below this probability the plug-in did not mean the token in question; noise must not be completed.
LEAST = 0.01
# Beginnings whose tables are kept on the device, about a kilobyte each.
_PATHS_KEPT = 4096


class Owed(NamedTuple):
    """The unfinished part of the plug-in's distribution, in LLM tokens.

    Attributes:
        ids: (k,) int64, LLM tokens that continue, not necessarily distinct.
        mass: (k,) float32, their probabilities; they sum to ``weight``.
        weight: () float32, probability that the plug-in's token goes on rather than ended; 0 where
            nothing is owed.
    """

    ids: Tensor
    mass: Tensor
    weight: Tensor

    def only(self) -> Owed:
        """The same, had the token certainly not ended; NaN where nothing is owed."""
        return Owed(self.ids, self.mass / self.weight, self.weight / self.weight)


class OwedRows(NamedTuple):
    """What is owed to the rows of a batch: ``q <- (1 - weight) q``, then ``q[slot] += mass``.

    Attributes:
        slots: (n, k) int64, indices in the layout's targets; -1 where there is nothing.
        mass: (n, k) float32, 0 where there is nothing.
        weight: (n,) float32.
    """

    slots: Tensor
    mass: Tensor
    weight: Tensor

    @classmethod
    def of(cls, owed: Sequence[Owed | None], layout: CarryLayout) -> OwedRows | None:
        """Put rows side by side; None where no row is owed anything."""
        if all(debt is None for debt in owed):
            return None
        device = layout.targets.device
        nothing = Owed(
            torch.empty(0, dtype=torch.int64, device=device),
            torch.empty(0, device=device),
            torch.zeros((), device=device),
        )
        rows = [[part.to(device) for part in (nothing if debt is None else debt)] for debt in owed]
        ids = pad_sequence([row[0] for row in rows], batch_first=True, padding_value=-1)
        mass = pad_sequence([row[1] for row in rows], batch_first=True)
        return cls(layout.slots_of(ids), mass, torch.stack([row[2] for row in rows]))


class _Path(NamedTuple):
    """What can follow some LLM tokens that spell the beginning of plug-in tokens.

    Attributes:
        sources: (k,) int64, plug-in tokens that go on.
        targets: (k,) int64, the LLM token each goes on with.
        ending: (e,) int64, plug-in tokens that end there.
    """

    sources: Tensor
    targets: Tensor
    ending: Tensor


class SpellingBook:
    """Finds what is owed after the LLM tokens written last.

    Args:
        spellings: Plug-in tokens that the LLM writes in several tokens.
        carry: (V_s,) int64, first LLM token of each plug-in token.
    """

    def __init__(self, spellings: Spellings, carry: Tensor) -> None:
        """Index every proper beginning of every spelling."""
        going_on: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        ending: dict[tuple[int, ...], list[int]] = {}
        spelt = spellings.as_lists()
        for token, ids in spelt.items():
            for size in range(1, len(ids)):
                going_on.setdefault(tuple(ids[:size]), []).append((token, ids[size]))
            ending.setdefault(tuple(ids), []).append(token)
        for token, target in enumerate(carry.tolist()):
            if token not in spelt and (target,) in going_on:
                ending.setdefault((target,), []).append(token)
        self._going_on, self._ending = going_on, ending
        self._paths: LRUCache[tuple[int, ...], _Path] = LRUCache(_PATHS_KEPT)
        #: How many tokens back a spelling can begin.
        self.reach = max(map(len, going_on), default=0)
        continuing = {llm for pairs in going_on.values() for _, llm in pairs}
        #: (f,) int64, every LLM token that can be owed, ascending.
        self.targets = torch.tensor(sorted(continuing), dtype=torch.int64)

    def owed(self, written: Sequence[int], before: Callable[[int], Tensor | None]) -> Owed | None:
        """What is owed now; None where the text alone rules it out.

        Of several beginnings that fit, the longest one that the plug-in meant (:data:`LEAST`) counts.

        Args:
            written: LLM tokens written last, at least ``reach`` of them where there are as many.
            before: The plug-in's log-probabilities, (V_s,), before the last k written tokens; None
                where it was not asked then.
        """
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for size in range(min(self.reach, len(written)), 0, -1):
            beginning = tuple(written[-size:])
            log_probs = before(size) if beginning in self._going_on else None
            if log_probs is not None:
                path = self._path(beginning, log_probs.device)
                parts.append((path.targets, *_continuations(path, log_probs)))
        if not parts:
            return None
        targets, masses, weight = [], [], torch.zeros_like(parts[0][2])
        for ids, mass, share in parts:
            unclaimed = (weight == 0).to(mass.dtype)
            targets.append(ids)
            masses.append(mass * unclaimed)
            weight = weight + share * unclaimed
        return Owed(torch.cat(targets), torch.cat(masses), weight)

    def _path(self, beginning: tuple[int, ...], device: torch.device) -> _Path:
        path = self._paths.get(beginning)
        if path is None:
            sources, targets = torch.tensor(self._going_on[beginning], device=device).unbind(1)
            ending = torch.tensor(self._ending.get(beginning, []), dtype=torch.int64, device=device)
            path = self._paths[beginning] = _Path(sources, targets, ending)
        return path


def _continuations(path: _Path, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each token that goes on, (k,), and of all of them, (), given the beginning.

    Both are 0 where the plug-in did not mean any of them.
    """
    probs = log_probs[path.sources].exp()
    total = probs.sum()
    meant = (total >= LEAST).to(probs.dtype)
    share = meant / (total + log_probs[path.ending].exp().sum()).clamp_(min=LEAST)
    return probs * share, total * share


def owe_inplace(carried: Tensor, owed: OwedRows) -> None:
    """Mix what is owed into carried distributions.

    Args:
        carried: (n, u) float32, the plug-in's distributions at the layout's targets.
        owed: Of the same rows.
    """
    carried.mul_((1 - owed.weight[:, None]).clamp_(min=0))
    if carried.shape[1] == 0:
        return
    known = owed.slots >= 0
    carried.scatter_add_(1, owed.slots.clamp(min=0), torch.where(known, owed.mass, 0.0))
