"""A plug-in, a synchroniser and a way to the LLM's vocabulary that say exactly what a test wants to hear."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple
from weakref import WeakSet

import torch

from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import KVCacheFullError, ModelError
from onceedit_vllm.evidence import Evidence
from onceedit_vllm.fusion.lists import Lists
from onceedit_vllm.fusion.owed import Owed, SpellingBook
from onceedit_vllm.plugin.client import LocalClient
from onceedit_vllm.plugin.gate import Gate
from onceedit_vllm.plugin.packs import Packs
from onceedit_vllm.plugin.reader import Reader
from onceedit_vllm.plugin.runtime import PlugInOutput, PlugInStep

VOCAB = 12
#: Prompts that hold this token are inside the scope of the edits.
EDITED = 7
#: An LLM token that ends the answer.
EOS = 0
#: Plug-in token with which the answers of all edits begin.
ANSWER = 10
#: A text that cannot be translated.
POISON = 10
#: A text on which the plug-in fails, and all that are read in one step with it.
BROKEN = 9
#: Half a character: it waits for the next token.
HALF = 11
#: Plug-in token 5 is written 5 then 9 by the LLM; everything else is written as it is.
SPELT = {5: [5, 9]}
EDITS = [EditRecord(id=name, prompt="p", target="t", subject=name) for name in ("Oslo", "Lima")]


class FakeRuntime:
    """Reads tokens like a real one and votes for (last token + 1); [WEIGHT] fires on EDITED.

    An edit's answer is as likely as not, which is evidence of nothing: [WEIGHT] decides. Tests may say
    otherwise.

    Attributes:
        texts: What each open slot has read.
        batches: The slots of every step.
        room: Tokens that all slots together may hold.
    """

    width = VOCAB

    def __init__(self) -> None:
        self.answer_probability = 0.5
        self.texts: dict[int, list[int]] = {}
        self.batches: list[list[int]] = []
        self.fails = False
        self.room = 10_000
        self._next_slot = 0

    @property
    def num_steps(self) -> int:
        return len(self.batches)

    def num_bytes(self) -> int:
        return 0

    def num_free_tokens(self) -> int:
        return self.room - sum(map(len, self.texts.values()))

    def num_reused_tokens(self) -> int:
        return 0

    def open(self) -> int:
        self._next_slot += 1
        self.texts[self._next_slot] = []
        return self._next_slot

    def close(self, slot: int) -> None:
        del self.texts[slot]

    def step(self, steps: Sequence[PlugInStep]) -> PlugInOutput:
        self.batches.append([step.slot for step in steps])
        if self.fails:
            raise ModelError("the plug-in is gone")
        self._refuse_if_full(steps)
        log_probs = torch.full((len(steps), VOCAB), float("-inf"))
        weights = torch.empty(len(steps))
        for i, step in enumerate(steps):
            text = self.texts[step.slot]
            assert step.rollback <= len(text)
            del text[len(text) - step.rollback :]
            text.extend(step.token_ids)
            if BROKEN in text:
                raise RuntimeError("out of memory")
            log_probs[i, ANSWER] = math.log(self.answer_probability)
            log_probs[i, (text[-1] + 1) % VOCAB] = math.log1p(-self.answer_probability)
            weights[i] = 5.0 if EDITED in text else -5.0
        return PlugInOutput(log_probs, weights)

    def _refuse_if_full(self, steps: Sequence[PlugInStep]) -> None:
        used = sum(map(len, self.texts.values()))
        for step in steps:
            used += len(step.token_ids) - step.rollback
            if used > self.room:
                raise KVCacheFullError(step.slot, "no room")


class FakeUpdate(NamedTuple):
    rollback: int
    new_ids: tuple[int, ...]


class FakeText:
    """LLM tokens are plug-in tokens here; HALF waits for the next."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        self._waiting: list[int] = []
        self.ready = self.reaches_end = True
        self.ended = False

    def extend(self, llm_ids: Sequence[int]) -> FakeUpdate:
        if POISON in llm_ids:
            raise ValueError("no text")
        self.ended = self.ended or EOS in llm_ids
        self._waiting.extend(llm_ids)
        self.ready = self.reaches_end = llm_ids[-1] != HALF
        if not self.ready:
            return FakeUpdate(0, ())
        new_ids, self._waiting = tuple(self._waiting), []
        self.ids.extend(new_ids)
        return FakeUpdate(0, new_ids)


class FakeSync:
    """Counts the texts that were begun."""

    def __init__(self) -> None:
        self.num_started = 0

    def start(self, prompt_ids: Sequence[int]) -> FakeText:
        self.num_started += 1
        if POISON in prompt_ids:
            raise ValueError("no text")
        return FakeText(prompt_ids)


class FakeCarrier:
    """Plug-in tokens are LLM tokens; remembers what was owed."""

    def __init__(self) -> None:
        self.owed: list[Sequence[Owed | None]] = []
        self.targets = torch.arange(VOCAB)
        self.book = SpellingBook(Spellings.of(SPELT), torch.arange(VOCAB))

    def carry(self, log_probs: torch.Tensor, owed: Sequence[Owed | None]) -> Lists:
        self.owed.append(owed)
        n = len(log_probs)
        return Lists(torch.arange(VOCAB).expand(n, -1), log_probs.exp(), torch.zeros(n), True)


class FakeTokenizer:
    """Every answer is one token."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [ANSWER]


class FakeEpoch:
    """A pack whose plug-in, synchroniser and tokenizer are not the real thing."""

    def __init__(self, number: int, runtime: FakeRuntime, gate: Gate) -> None:
        self.number = number
        self.pack = SimpleNamespace(edits=EDITS)
        self.runtime = runtime
        self.textsync = FakeSync()
        self._gate = gate

    def reader(self, vocabulary: Any, book: SpellingBook, *_: Any) -> Reader:
        textsync: Any = self.textsync
        runtime: Any = self.runtime
        return Reader(runtime, textsync, book, self._gate, Evidence(EDITS, FakeTokenizer()), None, _[-1])


class FakePacks(Packs):
    """Packs that are there without being loaded."""

    def __init__(self, *epochs: Any) -> None:
        self._epochs = {epoch.number: epoch for epoch in epochs}
        self._since = {epochs[0].number: 0.0}
        self._active = epochs[0].number
        self._followers: Any = WeakSet()
        self._changing = threading.Lock()


def some_client(runtime: FakeRuntime, gate: Gate | None = None, *more: FakeRuntime) -> LocalClient:
    """An end of a host of which only the bookkeeping is the real thing; `more` are loaded besides."""
    return client_of(FakePacks(*some_epochs(runtime, *more, gate=gate)))


def some_epochs(*runtimes: FakeRuntime, gate: Gate | None = None) -> list[FakeEpoch]:
    """A pack for each."""
    return [FakeEpoch(i + 1, each, gate or Gate(0.5)) for i, each in enumerate(runtimes)]


def client_of(packs: FakePacks) -> LocalClient:
    """An end of a host with these packs."""
    parts: tuple[Any, Any, Any] = (packs, None, FakeCarrier())
    return LocalClient(*parts)
