"""One engine's end of a host in the same process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch

from onceedit_vllm.plugin.host import ActivePack
from onceedit_vllm.plugin.packets import Answer, Answers, Append, Close, Event, State

if TYPE_CHECKING:
    from onceedit_vllm.fusion.carrier import Carrier
    from onceedit_vllm.fusion.lists import Lists
    from onceedit_vllm.plugin.epoch import Epoch
    from onceedit_vllm.plugin.host import Vocabulary
    from onceedit_vllm.plugin.packs import Packs
    from onceedit_vllm.plugin.reader import Reader, Words


class LocalClient:
    """A :class:`~onceedit_vllm.plugin.host.PlugInClient`: its requests, each with the pack it began with.

    Args:
        packs: Those that are loaded, and which one is active.
        vocabulary: The engine's LLM's.
        carrier: Takes the plug-in's distribution to it; one for all packs, which are edits of the same base.
        threshold: In place of those that packs were calibrated to.
        observe: Told the seconds of every step of the plug-in.
    """

    def __init__(
        self,
        packs: Packs,
        vocabulary: Vocabulary,
        carrier: Carrier,
        threshold: float | None = None,
        observe: Callable[[float], None] | None = None,
    ) -> None:
        self._packs = packs
        self._vocabulary = vocabulary
        self._settings = (threshold, observe)
        self._counts: Counter[str] = Counter()
        self._carrier = carrier
        self._readers: dict[int, Reader] = {}
        self._prepared: dict[int, Reader] = {}  # of packs that are not active yet
        self._epochs: dict[int, int] = {}  # of each handle
        self._reader_of(packs.active)
        packs.watch(self)

    @property
    def active(self) -> ActivePack:
        """See the protocol."""
        epoch = self._packs.active
        return ActivePack(epoch.number, epoch.pack.edits)

    @property
    def targets(self) -> torch.Tensor:
        """(u,) int64, the LLM tokens of every whole list, ascending."""
        return self._carrier.targets

    def send(self, events: Sequence[Event]) -> None:
        """See the protocol."""
        for event in events:
            if isinstance(event, Append):
                reader = self._readers.get(self._epochs.get(event.handle, -1))
                if reader is not None:
                    reader.append(event)
                continue
            self._forget(event.handle)
            if not isinstance(event, Close):
                epoch = self._packs.find(event.epoch)
                if epoch is not None:
                    self._epochs[event.handle] = epoch.number
                    self._reader_of(epoch).open(event)

    def take(self, wanted: Sequence[tuple[int, int]]) -> Answers:
        """See the protocol. Tensors are on the plug-in's device."""
        found: dict[int, tuple[Answer, Words | None]] = {}
        for number, reader in self._readers.items():
            own = [pair for pair in wanted if self._epochs.get(pair[0]) == number]
            if own:
                found |= zip([handle for handle, _ in own], reader.ask(own), strict=True)
        answers, said = [], []
        for handle, _ in wanted:
            answer, words = found.get(handle, (Answer(State.UNKNOWN), None))
            answers.append(answer)
            if words is not None:
                said.append(words)
            if answer.state not in (State.SPEAKING, State.SILENT):
                self._forget(handle)
        return Answers(answers, *self._carry(said))

    def more(self, handles: Sequence[int]) -> Lists:
        """See the protocol: all lists are whole here."""
        said = [self._readers[self._epochs[handle]].words(handle) for handle in handles]
        lists, _ = self._carry([words for words in said if words is not None])
        assert lists is not None
        return lists

    def num_texts(self, epoch: int | None = None) -> int:
        """Requests that are followed now, with one pack or with all."""
        readers = self._readers.items()
        return sum(reader.num_texts() for number, reader in readers if epoch in (None, number))

    def tally(self) -> dict[str, int]:
        """See the protocol; ``texts`` are those followed now."""
        return {**self._counts, "texts": self.num_texts(), **self._packs.tally()}

    def shutdown(self) -> None:
        """See the protocol."""
        for reader in self._readers.values():
            reader.shutdown()
        self._epochs.clear()

    def prepare(self, epoch: Epoch) -> None:
        """Make the reader of a pack that will be activated: it takes longer than a step."""
        self._prepared[epoch.number] = self._make_reader(epoch)

    def keep(self, epochs: Collection[int]) -> None:
        """Forget all that was begun with other packs; the engine is told that they are unknown."""
        gone = [number for number in self._readers if number not in epochs]
        for number in gone:
            self._readers.pop(number).shutdown()
        for number in list(self._prepared):
            if number not in epochs:
                self._prepared.pop(number, None)
        if gone:
            self._epochs = {handle: number for handle, number in self._epochs.items() if number in epochs}

    def _forget(self, handle: int) -> None:
        number = self._epochs.pop(handle, None)
        if number is None:
            return
        self._readers[number].forget(handle)
        if number != self.active.epoch:
            self._packs.retire()

    def _reader_of(self, epoch: Epoch) -> Reader:
        reader = self._readers.get(epoch.number)
        if reader is None:
            reader = self._prepared.pop(epoch.number, None) or self._make_reader(epoch)
            self._readers[epoch.number] = reader
        return reader

    def _make_reader(self, epoch: Epoch) -> Reader:
        return epoch.reader(self._vocabulary, self._carrier.book, *self._settings, self._counts)

    def _carry(self, said: Sequence[Words]) -> tuple[Lists | None, torch.Tensor | None]:
        if not said:
            return None, None
        log_probs = torch.stack([words.log_probs for words in said])
        return self._carrier.carry(log_probs, [words.owed for words in said]), log_probs
