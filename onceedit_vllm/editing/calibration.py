"""The gate's thresholds, from texts that training never saw: generated ones, and the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onceedit_vllm.binomial import lower_bound, upper_bound
from onceedit_vllm.editing.probe import Reading
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.pack import GateRate

#: With a subject named, few prompts are wrong and a missed edit is the likelier harm; without, alpha alone
#: must keep all other traffic out. Above the highest, noise decides. From 0.05 down to 0.02 one more of 189
#: rephrases of three public sets was answered, and five of 86 half sentences and one of 94 questions that
#: ask for something else were, too; up to 0.1 three fewer, and one and two fewer.
LOWEST_WITH_SUBJECT, LOWEST_ALONE, HIGHEST = 0.05, 0.5, 0.95
#: Judged, not fitted, on 14 facts of our own and 100 of CounterFact's, one training each. Evidence for
#: people's wordings lay 2.4 log-odds below that for generated ones in the median of the first, 1.3 in the
#: lowest tenth; 5.0 and 6.5 with the second: lower, and spread, by a logistic distribution here. Of other
#: questions about the subject fewer of people's opened than of generated ones with the first, 20 of 89
#: against 24 of 565 with the second; between 0.05 and 0.2 it was the same 20, while four more paraphrases of
#: 100 were answered.
EASIER, SPREAD, HARDER = 4.0, 2.0, 0.5
#: Nearer to 0 and 1 a probability says no more.
_CERTAIN = 1e-9
#: What a false opening costs where alpha decides alone, in missed edits.
COSTLY = 3.0


class Strata(NamedTuple):
    """The readings of the texts that a gate is calibrated on, kind by kind.

    Attributes:
        edits: The edits' own prompts.
        wordings: Other wordings of them.
        same_subject: Texts that name an edit's subject and ask for something else.
        neighbours: The same questions about others.
        unrelated: Prompts about anything else.
        asked: The user's prompts that ask for an edit, and name its subject.
        named: The user's prompts that ask for none, and name an edit's subject.
        unnamed: The user's prompts that ask for none and name none, or cannot be asking by their words.
    """

    edits: Sequence[Reading]
    wordings: Sequence[Reading] = ()
    same_subject: Sequence[Reading] = ()
    neighbours: Sequence[Reading] = ()
    unrelated: Sequence[Reading] = ()
    asked: Sequence[Reading] = ()
    named: Sequence[Reading] = ()
    unnamed: Sequence[Reading] = ()

    @property
    def others(self) -> list[Reading]:
        """Generated texts that name no subject."""
        return [*self.neighbours, *self.unrelated]


#: How people call the strata, and which of them ask for an edit.
TITLES = {
    "edits": "the edits' prompts",
    "wordings": "held-out wordings of them",
    "same_subject": "other questions about their subjects",
    "neighbours": "the same questions about others",
    "unrelated": "unrelated prompts",
    "asked": "your prompts that ask for an edit",
    "named": "your prompts that ask for none and name a subject",
    "unnamed": "your prompts that name no subject, or ask something else of it",
}
ASKING = frozenset({"edits", "wordings", "asked"})
#: The strata that name no subject: of a threshold that is for prompts that do, they say nothing.
WITHOUT_SUBJECT = frozenset({"neighbours", "unrelated", "unnamed"})


class Calibration(NamedTuple):
    """A threshold and how it came about."""

    threshold: float
    true_positive_rate: float
    false_positive_rate: float
    reason: str


class Thresholds(NamedTuple):
    """The gate's two thresholds.

    Attributes:
        with_subject: For prompts that name an edit's subject.
        alone: For all prompts, where alpha alone decides.
    """

    with_subject: Calibration
    alone: Calibration


@dataclass(frozen=True)
class _Texts:
    """What is compared with a cut for some texts, and what their being wrong costs.

    Attributes:
        values: Evidence or alpha, as measured.
        asks: They must open the gate.
        weight: Of the share that is wrong, in the cost.
        easier: They are expected to lie this much log-odds below what was measured, and to be spread: other
            people's will.
    """

    values: Sequence[float]
    asks: bool
    weight: float = 1.0
    easier: float = 0.0

    def wrong(self, cut: float) -> float:
        """The share that is expected on the wrong side of a cut."""
        if self.easier:
            far = _log_odds(np.float64(cut)) - self._odds + self.easier
            return float(np.mean(1 / (1 + np.exp(-far / SPREAD))))
        opened = _share(self.values, cut)
        return 1 - opened if self.asks else opened

    @cached_property
    def _odds(self) -> NDArray[np.float64]:
        """Made once: of many edits there are thousands of cuts, and as many values at each."""
        odds: NDArray[np.float64] = _log_odds(np.array(self.values, dtype=np.float64))
        return odds


def calibrate(strata: Strata, most_false: float | None = None) -> Thresholds:
    """Choose both thresholds between what is said for texts that ask for an edit and for those that do not.

    With a subject named that is the evidence, without one alpha. What the user gave counts as much as all
    that was generated of its kind, and as it was measured: it is what will come.

    Args:
        strata: The readings; at least one text asks for an edit.
        most_false: Highest rate of false openings that the texts must rule out, at 95 % (Clopper–Pearson),
            for either threshold; None: only the cost decides.

    Raises:
        BadInputError: No threshold keeps `most_false`.
    """
    asked = [*strata.edits, *strata.wordings]
    evidence = [
        _Texts(_evidence(asked), True, easier=EASIER),
        _Texts(_evidence(strata.same_subject), False, HARDER),
        _Texts(_evidence(strata.asked), True),
        _Texts(_evidence(strata.named), False),
    ]
    alpha = [
        _Texts(_alpha(asked), True),
        _Texts(_alpha([*strata.same_subject, *strata.others]), False, COSTLY),
        _Texts(_alpha(strata.asked), True),
        _Texts(_alpha([*strata.named, *strata.unnamed]), False, COSTLY),
    ]
    return Thresholds(_cut(evidence, LOWEST_WITH_SUBJECT, most_false), _cut(alpha, LOWEST_ALONE, most_false))


def gate_rates(strata: Strata, thresholds: Thresholds) -> tuple[GateRate, ...]:
    """How many texts of every kind open the gate, with the bound on the rate, for either threshold."""
    found = []
    for name, title in TITLES.items():
        readings = getattr(strata, name)
        if readings and name not in WITHOUT_SUBJECT:
            cut = thresholds.with_subject.threshold
            found.append(_rate(title, "subject", name in ASKING, _evidence(readings), cut))
        if readings:
            cut = thresholds.alone.threshold
            found.append(_rate(title, "weight", name in ASKING, _alpha(readings), cut))
    return tuple(found)


def _rate(title: str, decided_by: str, asks: bool, values: Sequence[float], cut: float) -> GateRate:
    opened, n = sum(value >= cut for value in values), len(values)
    bound = lower_bound(opened, n) if asks else upper_bound(opened, n)
    return GateRate.model_validate(
        {"texts": title, "decided_by": decided_by, "asks": asks, "n": n, "opened": opened}
        | {"bound": round(bound, 4)}
    )


def _cut(texts: Sequence[_Texts], lowest: float, most_false: float | None) -> Calibration:
    """The cut of least cost; among equal costs the middle of the widest range wins.

    Every cut between two neighbouring values is a candidate. The rates that are reported are those measured.
    """
    given = [each for each in texts if each.values]
    inside = (value for each in given for value in each.values if lowest < value < HIGHEST)
    points = sorted({lowest, HIGHEST, *inside})
    candidates = [(round((low + high) / 2, 4), high - low) for low, high in pairwise(points)]
    if most_false is not None:
        candidates = [each for each in candidates if _bound(texts, each[0]) <= most_false]
        if not candidates:
            raise _too_much_to_ask(texts, most_false)
    threshold, _ = min(candidates, key=lambda each: (round(_cost(given, each[0]), 9), -each[1]))
    found, opened = (_pooled(texts, asks, threshold) for asks in (True, False))
    return Calibration(threshold, found, opened, "".join(_reason(texts, threshold, most_false)))


def _cost(texts: Sequence[_Texts], cut: float) -> float:
    return sum(each.weight * each.wrong(cut) for each in texts)


def _reason(texts: Sequence[_Texts], cut: float, most_false: float | None) -> Iterator[str]:
    asking, others = texts[0], texts[1]
    yield f"least cost (a false opening counts {others.weight:.2g} times) on {len(asking.values)} held-out "
    yield f"wordings of the edits and {len(others.values)} held-out prompts outside them: opens on "
    yield f"{_share(asking.values, cut):.1%} and {_share(others.values, cut):.1%}"
    own = [each for each in texts[2:] if each.values]
    if own:
        counts = (f"{sum(v >= cut for v in each.values)} of {len(each.values)}" for each in own)
        names = ("that ask for an edit" if each.asks else "that do not" for each in own)
        yield "; of the user's on " + " and ".join(
            f"{c} {name}" for c, name in zip(counts, names, strict=True)
        )
    if most_false is not None:
        yield f"; at most {most_false:.2%} false openings, at 95 %: {_bound(texts, cut):.2%}"


def _too_much_to_ask(texts: Sequence[_Texts], most_false: float) -> BadInputError:
    n = sum(len(each.values) for each in texts if not each.asks)
    return BadInputError(
        f"no threshold rules out {most_false:.2%} false openings: with {n} texts that must not open the gate "
        f"the bound is {_bound(texts, HIGHEST):.2%} at a threshold of {HIGHEST}; allow more, or give more "
        "prompts that ask for no edit"
    )


def _bound(texts: Sequence[_Texts], cut: float) -> float:
    """The highest rate of false openings that the texts leave possible, at 95 %."""
    values = [value for each in texts if not each.asks for value in each.values]
    return upper_bound(sum(value >= cut for value in values), len(values))


def _pooled(texts: Sequence[_Texts], asks: bool, cut: float) -> float:
    return _share([value for each in texts if each.asks is asks for value in each.values], cut)


def _share(values: Sequence[float], cut: float) -> float:
    return sum(value >= cut for value in values) / max(1, len(values))


def _evidence(readings: Sequence[Reading]) -> list[float]:
    return [reading.evidence for reading in readings]


def _alpha(readings: Sequence[Reading]) -> list[float]:
    return [reading.alpha for reading in readings]


def _log_odds(probability: Any) -> Any:
    """Of a number or an array of them, kept away from 0 and 1."""
    inside = np.clip(probability, _CERTAIN, 1 - _CERTAIN)
    return np.log(inside) - np.log1p(-inside)
