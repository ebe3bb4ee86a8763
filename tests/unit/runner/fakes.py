"""A plug-in, a synchroniser and a fuser that say exactly what a test wants to hear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.config import ScopeKind
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import ModelError
from onceedit_vllm.evidence import Evidence
from onceedit_vllm.fusion.counts import FuseCounts
from onceedit_vllm.fusion.owed import Owed, SpellingBook
from onceedit_vllm.plugin.host import PlugInOutput, PlugInStep
from onceedit_vllm.runner.gate import Gate
from onceedit_vllm.runner.scope import PromptScope
from onceedit_vllm.runner.step import FusionStep

VOCAB = 12
#: Prompts that hold this token are inside the scope of the edits.
EDITED = 7
#: An LLM token that ends the answer.
EOS = 0
#: Plug-in token with which the answers of all edits begin.
ANSWER = 10
#: Plug-in token 5 is written 5 then 9 by the LLM; everything else is written as it is.
SPELT = {5: [5, 9]}


#: Prompts that hold this one name a subject too, but do not ask for an edit.
NAMED = 6
#: What the LLM's tokens stand for; the last is half a character.
PIECES = [None, *(f" word{i}".encode() for i in range(1, NAMED)), b" Oslo", b" Lima", b" w8", b" w9", b" w10"]
PIECES += ["ß".encode()[:1]]


EDITS = [EditRecord(id=name, prompt="p", target="t", subject=name) for name in ("Oslo", "Lima")]


def some_scope(kind: ScopeKind = "subject+weight", *more: EditRecord) -> PromptScope:
    """The real thing: it knows the subjects Oslo (token NAMED) and Lima (token EDITED)."""
    surface = Surface("byte-level", PIECES, frozenset({EOS}), frozenset(), EOS, False)
    return PromptScope([*EDITS, *more], surface, kind)


#: An edit that no prompt can name.
UNNAMED = EditRecord(id="unnamed", prompt="p", target="t")


class FakeHost:
    """Reads tokens like a real host and votes for (last token + 1); [WEIGHT] fires on EDITED.

    An edit's answer is as likely as not, which is evidence of nothing: [WEIGHT] decides. Tests may say
    otherwise.
    """

    def __init__(self) -> None:
        self.answer_probability = 0.5
        self.texts: dict[int, list[int]] = {}
        self.num_steps = 0
        self.fails = False
        self._results: dict[int, PlugInOutput] = {}
        self._next_slot = 0

    def open(self) -> int:
        self._next_slot += 1
        self.texts[self._next_slot] = []
        return self._next_slot

    def close(self, slot: int) -> None:
        del self.texts[slot]

    def submit(self, steps: Sequence[PlugInStep]) -> int:
        self.num_steps += 1
        log_probs = torch.full((len(steps), VOCAB), float("-inf"))
        weights = torch.empty(len(steps))
        for i, step in enumerate(steps):
            text = self.texts[step.slot]
            del text[len(text) - step.rollback :]
            text.extend(step.token_ids)
            log_probs[i, ANSWER] = math.log(self.answer_probability)
            log_probs[i, (text[-1] + 1) % VOCAB] = 0.0
            weights[i] = 5.0 if EDITED in text else -5.0
        self._results[self.num_steps] = PlugInOutput(log_probs, weights)
        return self.num_steps

    def collect(self, ticket: int) -> PlugInOutput:
        if self.fails:
            raise ModelError("the plug-in is gone")
        return self._results.pop(ticket)

    def shutdown(self) -> None:
        self.texts.clear()


class FakeUpdate(NamedTuple):
    rollback: int
    new_ids: tuple[int, ...]


class FakeText:
    """LLM tokens are plug-in tokens here; token 11 is half a character and waits for the next."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._waiting: list[int] = []
        self.ready = True
        self.ended = False

    def extend(self, llm_ids: Sequence[int]) -> FakeUpdate:
        if POISON in llm_ids:
            raise ValueError("no text")
        self.ended = self.ended or EOS in llm_ids
        self._waiting.extend(llm_ids)
        self.ready = llm_ids[-1] != 11
        if not self.ready:
            return FakeUpdate(0, ())
        new_ids, self._waiting = tuple(self._waiting), []
        self.ids.extend(new_ids)
        return FakeUpdate(0, new_ids)


#: A text that cannot be translated.
POISON = 10


class FakeSync:
    def start(self, prompt_ids: Sequence[int]) -> FakeText:
        if POISON in prompt_ids:
            raise ValueError("no text")
        return FakeText(prompt_ids)


class FakeFuser:
    """Writes the plug-in's log-probabilities over the rows; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], list[float], list[bool]]] = []
        self.owed: list[list[Owed | None]] = []
        self.book = SpellingBook(Spellings.of(SPELT), torch.arange(VOCAB))

    def fuse_rows_inplace(
        self,
        logits: torch.Tensor,
        rows: torch.Tensor,
        plugin_log_probs: torch.Tensor,
        alpha: torch.Tensor,
        want_search: torch.Tensor,
        owed: list[Owed | None],
    ) -> None:
        self.owed.append(owed)
        self.calls.append((rows.tolist(), alpha.tolist(), want_search.tolist()))
        logits[rows] = plugin_log_probs.clamp(min=-50.0)

    def counts(self) -> FuseCounts:
        return FuseCounts(searched=sum(len(rows) for rows, _, _ in self.calls))


class FakeTokenizer:
    """Every answer is one token."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [ANSWER]


def some_step(
    host: FakeHost, scope: PromptScope | None = None, gate: Gate | None = None, **settings: Any
) -> FusionStep:
    """A step of which the host, the synchroniser and the fuser are not the real thing."""
    evidence = Evidence(EDITS, FakeTokenizer())
    sync: Any = FakeSync()
    fuser: Any = FakeFuser()
    return FusionStep(host, sync, fuser, gate or Gate(0.5), evidence, scope, **settings)
