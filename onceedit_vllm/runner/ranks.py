"""One plug-in for all tensor-parallel ranks of an engine.

Every rank computes the same logits, samples the same token and goes on from it; ranks that differ in one
logit would go on from two texts. So the first rank alone asks the plug-in, what it answers travels as bytes,
all ranks, the first too, fuse what they read from these bytes, and a step in which one rank fails is taken
back on all.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from onceedit_vllm.errors import ModelError, OnceEditError
from onceedit_vllm.plugin.host import ActivePack
from onceedit_vllm.plugin.packets import Answers, Close, Event, Open, State
from onceedit_vllm.runner.rank_check import Comparison
from onceedit_vllm.runner.rank_messages import (
    Failed,
    Looked,
    Message,
    Taken,
    Verdict,
    Whole,
    answers_of,
    decode,
    encode,
    pack_lists,
    unpack_lists,
)

if TYPE_CHECKING:
    import torch

    from onceedit_vllm.fusion.lists import Lists
    from onceedit_vllm.plugin.host import PlugInClient
    from onceedit_vllm.runner.rank_channel import Channel
    from onceedit_vllm.runner.scope import Look

logger = logging.getLogger("onceedit_vllm.runner")

#: How long a rank waits for another before it gives a step up. Long: a rank that gives up while the others go
#: on is what must not happen, and vLLM ends an engine whose worker is silent for 300 s.
DEADLINE = 120.0
# How long a step of other requests than one's own may still turn out to be over.
_PATIENCE = 1.0

_Wanted = tuple[tuple[int, int], ...]


class Ranks(Protocol):
    """What a step asks of the ranks that take it together. All of them ask the same in the same order."""

    #: True on the rank that speaks for all: it counts and logs.
    is_first: bool

    def share_look(self, number: int, look: Callable[[], Look]) -> Look:
        """What the first rank finds in a prompt; no other one looks.

        Args:
            number: Which request it is, the same on all ranks.
            look: Looks, on the first rank.

        Raises:
            ModelError: Looking failed, here as on all ranks.
            TimeoutError: The other ranks cannot be reached.
        """

    def agree(self, is_good: bool) -> bool:
        """True if the step went well on all ranks. Never raises."""

    def check(self, logits: torch.Tensor) -> None:
        """Compare the ranks' logits where that is switched on. Never raises."""


class FirstRank:
    """A :class:`~onceedit_vllm.plugin.host.PlugInClient` around another one, and :class:`Ranks`.

    Args:
        client: This engine's end of the plug-in's host.
        channel: To the other ranks.
        compares: Compare all logits of every step: for tests, it costs more than the step.
        deadline: Seconds that the other ranks wait. An answer that took more than half of it is dropped.
    """

    is_first = True

    def __init__(
        self, client: PlugInClient, channel: Channel, compares: bool = False, deadline: float = DEADLINE
    ) -> None:
        self._client = client
        self._channel = channel
        self._comparison = Comparison(channel) if compares else None
        self._deadline = deadline
        self._step = 0
        self._counts: Counter[str] = Counter()
        # Requests whose lists are not cut.
        self._whole: set[int] = set()

    @property
    def active(self) -> ActivePack:
        """See the protocol."""
        return self._client.active

    def send(self, events: Sequence[Event]) -> None:
        """See the protocol."""
        for event in events:
            if isinstance(event, Open) and event.whole:
                self._whole.add(event.handle)
            elif isinstance(event, Close):
                self._whole.discard(event.handle)
        self._client.send(events)

    def take(self, wanted: Sequence[tuple[int, int]]) -> Answers:
        """See the protocol. What is not to be whole is cut; there are no ``log_probs``."""
        self._step += 1
        asked = tuple(wanted)
        taken = self._share(asked, lambda: self._taken(asked))
        assert isinstance(taken, Taken)
        return answers_of(taken)

    def more(self, handles: Sequence[int]) -> Lists:
        """See the protocol."""
        whole = self._share((), lambda: self._whole_lists(handles))
        assert isinstance(whole, Whole)
        return unpack_lists(whole.lists)

    def tally(self) -> dict[str, int]:
        """See the protocol, with the steps taken back and what was compared."""
        compared = {} if self._comparison is None else self._comparison.counts
        return {**self._client.tally(), **self._counts, **compared}

    def shutdown(self) -> None:
        """See the protocol."""
        self._client.shutdown()

    def share_look(self, number: int, look: Callable[[], Look]) -> Look:
        """See :class:`Ranks`."""
        found, reason, cause = None, "", None
        try:
            found = look()
        except Exception as error:
            reason, cause = _reason(error), error
        self._channel.tell(encode(Looked(number, found, reason)), self._deadline / 2)
        if found is None:
            raise ModelError(reason) from cause
        return found

    def agree(self, is_good: bool) -> bool:
        """See :class:`Ranks`."""
        try:
            for rank in range(1, self._channel.size):
                is_good = self._hears_good(rank) if is_good else self._forgets(rank)
            self._channel.tell(encode(Verdict(self._step, is_good)), self._deadline / 2)
        except Exception as error:
            is_good = False
            logger.warning("onceedit: the other ranks cannot be reached: %s", error)
        self._counts["steps_taken_back"] += not is_good
        return is_good

    def check(self, logits: torch.Tensor) -> None:
        """See :class:`Ranks`."""
        if self._comparison is not None:
            self._comparison.compare(logits)

    def _taken(self, wanted: _Wanted) -> Taken:
        answers = self._client.take(wanted)
        speaking = [
            handle
            for (handle, _), answer in zip(wanted, answers.of, strict=True)
            if answer.state == State.SPEAKING
        ]
        keeps = [handle in self._whole for handle in speaking]
        lists = None if answers.lists is None else pack_lists(answers.lists, keeps)
        return Taken(self._step, wanted, tuple((a.state, a.alpha) for a in answers.of), lists)

    def _whole_lists(self, handles: Sequence[int]) -> Whole:
        return Whole(self._step, pack_lists(self._client.more(handles), [True] * len(handles)))

    def _share(self, wanted: _Wanted, make: Callable[[], Message]) -> Message:
        """Make a message, or an error, for all ranks; read it as they do.

        Raises:
            ModelError: It was an error, here as on all ranks.
        """
        try:
            message, cause = self._in_time(make), None
        except Exception as error:
            message, cause = Failed(self._step, wanted, _reason(error)), error
        payload = encode(message)
        self._channel.tell(payload, self._deadline / 2)
        message = decode(payload)
        if isinstance(message, Failed):
            raise ModelError(message.reason) from cause
        return message

    def _in_time(self, make: Callable[[], Message]) -> Message:
        started = time.monotonic()
        message = make()
        seconds = time.monotonic() - started
        if seconds > self._deadline / 2:
            raise ModelError(f"the plug-in took {seconds:.0f} s, longer than the other ranks can wait")
        return message

    def _hears_good(self, rank: int) -> bool:
        """What a rank says of this step; of earlier ones it may have said it too late."""
        until = time.monotonic() + self._deadline / 2
        try:
            while True:
                verdict = decode(self._channel.hear(rank, max(0.0, until - time.monotonic())))
                if isinstance(verdict, Verdict) and verdict.step == self._step:
                    return verdict.is_good
        except TimeoutError:
            logger.warning("onceedit: rank %d says nothing; the LLM answers these requests alone", rank)
            return False

    def _forgets(self, rank: int) -> bool:
        """Make room for what a rank will say, when what it says of this step does not matter any more."""
        try:
            while True:
                self._channel.hear(rank, 0.0)
        except TimeoutError:
            return False


def _reason(error: Exception) -> str:
    """What to say of an error elsewhere."""
    return str(error) if isinstance(error, OnceEditError) else f"{type(error).__name__}: {error}"


class OtherRank:
    """The same on a rank without the plug-in: it hears what the first one was answered.

    Args:
        channel: To the first rank.
        compares: As on the first rank.
        deadline: Seconds to wait for the first rank.
    """

    is_first = False

    def __init__(self, channel: Channel, compares: bool = False, deadline: float = DEADLINE) -> None:
        #: See the protocol. As the first rank has said; what it was made from is known there only.
        self.active = ActivePack(1, ())
        self._channel = channel
        self._comparison = Comparison(channel) if compares else None
        self._deadline = deadline
        self._step = 0
        # Heard too early: it is of a request that comes later here.
        self._early: Message | None = None

    def send(self, events: Sequence[Event]) -> None:
        """See the protocol: the first rank has told it."""

    def take(self, wanted: Sequence[tuple[int, int]]) -> Answers:
        """See the protocol."""
        message = self._answer_to(tuple(wanted))
        if isinstance(message, Failed):
            raise ModelError(message.reason)
        return answers_of(message)

    def more(self, handles: Sequence[int]) -> Lists:
        """See the protocol."""
        message = self._of_this_step(self._deadline)
        if isinstance(message, Whole):
            return unpack_lists(message.lists)
        raise ModelError(message.reason if isinstance(message, Failed) else "the first rank has failed")

    def tally(self) -> dict[str, int]:
        """See the protocol; the first rank counts."""
        return {} if self._comparison is None else dict(self._comparison.counts)

    def shutdown(self) -> None:
        """See the protocol; the first rank frees."""

    def share_look(self, number: int, look: Callable[[], Look]) -> Look:
        """See :class:`Ranks`; there is nothing here to look with."""
        looked = self._looked_at(number)
        if looked.look is None:
            raise ModelError(looked.reason)
        self.active = ActivePack(looked.look.epoch, ())
        return looked.look

    def agree(self, is_good: bool) -> bool:
        """See :class:`Ranks`."""
        try:
            self._channel.tell(encode(Verdict(self._step, is_good)), self._deadline / 2)
            while is_good:
                message = self._of_this_step(self._deadline)
                if isinstance(message, Verdict):
                    return message.is_good
        except Exception as error:
            logger.warning("onceedit: the first rank cannot be reached: %s", error)
        return False

    def check(self, logits: torch.Tensor) -> None:
        """See :class:`Ranks`."""
        if self._comparison is not None:
            self._comparison.compare(logits)

    def _answer_to(self, wanted: _Wanted) -> Taken | Failed:
        """The first rank's answer to what is wanted here; its number is that of the step.

        What it took while nothing was wanted here is over by its verdict, and passed over.

        Raises:
            ModelError: It has taken something else, and waits for this rank's word on it.
            TimeoutError: It has taken nothing.
        """
        until, is_over = time.monotonic() + self._deadline, True
        while True:
            try:
                message = self._hear(max(0.0, until - time.monotonic()) if is_over else _PATIENCE)
            except TimeoutError:
                if is_over:
                    raise
                raise ModelError("the engine's workers follow different requests") from None
            if isinstance(message, Verdict):
                is_over = is_over or message.step == self._step
            elif isinstance(message, Taken | Failed):
                self._step = message.step
                if message.wanted == wanted:
                    return message
                is_over = False

    def _looked_at(self, number: int) -> Looked:
        """What the first rank has found in this request's prompt.

        A step that it has taken meanwhile is one that this rank has no part in: it says so, as it is waited
        for.

        Raises:
            ModelError: The first rank looks at other requests.
            TimeoutError: It looks at none.
        """
        until = time.monotonic() + self._deadline
        while True:
            message = self._hear(max(0.0, until - time.monotonic()))
            if isinstance(message, Taken | Failed):
                self._channel.tell(encode(Verdict(message.step, False)), self._deadline / 2)
            elif isinstance(message, Looked) and message.number == number:
                return message
            elif isinstance(message, Looked) and message.number > number:
                self._early = message
                raise ModelError("the engine's workers follow different requests")

    def _of_this_step(self, seconds: float) -> Taken | Whole | Failed | Verdict:
        while isinstance(message := self._hear(seconds), Looked) or message.step != self._step:
            pass
        return message

    def _hear(self, seconds: float) -> Message:
        early, self._early = self._early, None
        return early or decode(self._channel.hear(0, seconds))
