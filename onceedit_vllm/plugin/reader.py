"""Reads one engine's requests with the plug-in of one pack, and says what it makes of them.

Nothing that happens to one request touches another: what fails in a batch is tried again request by
request, and new prompts are read apart from texts that are under way.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from onceedit_vllm.errors import KVCacheFullError
from onceedit_vllm.plugin.packets import Answer, Append, Open, State
from onceedit_vllm.plugin.reading import Reading

if TYPE_CHECKING:
    import torch

    from onceedit_vllm.evidence import Evidence
    from onceedit_vllm.fusion.owed import Owed, SpellingBook
    from onceedit_vllm.plugin.gate import Gate
    from onceedit_vllm.plugin.runtime import PlugInRuntime
    from onceedit_vllm.plugin.textsync import TextSync

logger = logging.getLogger("onceedit_vllm.plugin")


class Words(NamedTuple):
    """What the plug-in says about the next token.

    Attributes:
        log_probs: (V_s,) float32.
        owed: The rest of a token that the LLM writes in several.
    """

    log_probs: torch.Tensor
    owed: Owed | None


class Reader:
    """Follows texts, decides on them, and keeps what the plug-in said.

    Args:
        runtime: Runs the plug-in.
        textsync: Translates this LLM's tokens to the plug-in's.
        book: Knows what the plug-in owes after the LLM's tokens.
        gate: Decides which prompts the edits take part in.
        evidence: Weighs what the plug-in says for an edit.
        observe: Told the seconds of every step of the plug-in.
        counts: Where to count; None: nowhere else.
    """

    def __init__(
        self,
        runtime: PlugInRuntime,
        textsync: TextSync,
        book: SpellingBook,
        gate: Gate,
        evidence: Evidence,
        observe: Callable[[float], None] | None = None,
        counts: Counter[str] | None = None,
    ) -> None:
        self._runtime = runtime
        self._textsync = textsync
        self._book = book
        self._gate = gate
        self._evidence = evidence
        self._observe = observe
        self._readings: dict[int, Reading] = {}
        # How many output tokens back the plug-in's words still matter.
        self._reach = book.reach
        self._counts: Counter[str] = Counter() if counts is None else counts

    def open(self, event: Open) -> None:
        """Begin to follow a request, in place of one of the same handle."""
        self.forget(event.handle)
        self._readings[event.handle] = _reading_of(event)

    def append(self, event: Append) -> None:
        """Go on with a text. Where that has a gap or a second version, it is no text to go on with."""
        reading = self._readings.get(event.handle)
        if reading is None:
            return
        if event.start != len(reading.output_ids):
            self.forget(event.handle)
        else:
            reading.output_ids.extend(event.ids)

    def forget(self, handle: int) -> None:
        """Follow a request no longer; one that is not followed is left alone."""
        reading = self._readings.pop(handle, None)
        if reading is not None:
            self._give_back(reading)

    def ask(self, wanted: Sequence[tuple[int, int]]) -> list[tuple[Answer, Words | None]]:
        """What the plug-in says of some requests, and what it says next where it is SPEAKING.

        Args:
            wanted: Distinct handles, each with the number of its output tokens.
        """
        asked = [self._find(handle, length) for handle, length in wanted]
        known = [reading for reading in asked if reading is not None]
        self._decide([reading for reading in known if reading.alpha is None])
        self._catch_up([reading for reading in known if reading.is_open])
        said = [None if reading is None else self._say(reading) for reading in asked]
        answers = [_answer_of(*pair) for pair in zip(asked, said, strict=True)]
        for (handle, _), answer in zip(wanted, answers, strict=True):
            if answer.state not in (State.SPEAKING, State.SILENT):
                self.forget(handle)
        return list(zip(answers, said, strict=True))

    def words(self, handle: int) -> Words | None:
        """What the plug-in said last of a request, once more."""
        reading = self._readings.get(handle)
        return None if reading is None else self._say(reading)

    def num_texts(self) -> int:
        """Requests that are followed now."""
        return len(self._readings)

    def shutdown(self) -> None:
        """Forget all."""
        for handle in list(self._readings):
            self.forget(handle)

    def _find(self, handle: int, length: int) -> Reading | None:
        reading = self._readings.get(handle)
        return reading if reading is not None and len(reading.output_ids) == length else None

    def _give_back(self, reading: Reading) -> None:
        slot, reading.slot = reading.slot, None
        if slot is not None:
            self._runtime.close(slot)

    def _decide(self, readings: Sequence[Reading]) -> None:
        """Take the gate's decision for requests seen for the first time."""
        undecided = self._each(readings, self._asks_weight)
        # The n samples of one prompt share one look at it.
        self._read(list({reading.key: reading for reading in reversed(undecided)}.values()))
        for reading in undecided:
            alpha = self._gate.recall(reading.key)
            if alpha is None:
                reading.is_lost = True  # with the sample that was read for it
            else:
                self._settle(reading, alpha)

    def _asks_weight(self, reading: Reading) -> bool:
        """False where the decision is remembered, or the prompt holds no text."""
        alpha = self._gate.recall(reading.key)
        if alpha is None:
            reading.queue_prompt(self._textsync.start(reading.prompt_ids))
            if reading.num_pending:
                return True
            alpha = 0.0
        self._settle(reading, alpha)
        return False

    def _settle(self, reading: Reading, alpha: float) -> None:
        reading.alpha = alpha
        reading.is_open = self._gate.is_open(alpha, named=bool(reading.named))

    def _catch_up(self, readings: Sequence[Reading]) -> None:
        """Let the plug-in read all output tokens.

        Usually that is one token and one round. A resumed request reads its last few tokens one by
        one, because what the plug-in said between them matters (see :class:`SpellingBook`).
        """
        behind = self._each(readings, self._sync_all_but_the_last)
        self._read(behind)
        while behind := self._each(behind, _sync_one):
            self._read(behind)

    def _sync_all_but_the_last(self, reading: Reading) -> bool:
        """Translate all output tokens but the last few; False where the text is over."""
        if reading.text is None:
            reading.queue_prompt(self._textsync.start(reading.prompt_ids))
        reading.sync_outputs(max(reading.num_synced, len(reading.output_ids) - self._reach))
        return True

    def _each(self, readings: Sequence[Reading], act: Callable[[Reading], bool]) -> list[Reading]:
        """Those for which ``act`` is true; one on which it fails is lost, and no other."""
        kept = []
        for reading in readings:
            try:
                if not reading.is_lost and act(reading):
                    kept.append(reading)
            except Exception as error:
                self._lose(reading, "following a text", error)
        return kept

    def _read(self, readings: Sequence[Reading]) -> None:
        """Let the plug-in read what each text has pending, and keep what it says."""
        pending = [reading for reading in readings if reading.num_pending]
        running = [reading for reading in pending if reading.slot is not None]
        new = [reading for reading in pending if reading.slot is None]
        self._read_together(running)
        self._read_together(new)

    def _read_together(self, readings: Sequence[Reading]) -> None:
        while readings:
            try:
                self._step(readings)
            except KVCacheFullError as error:
                # Nothing was read. Without the text that has no room, the others are.
                (full,) = [reading for reading in readings if reading.slot == error.slot]
                self._counts["kv_full"] += 1
                self._lose(full, "making room for a text", error)
                readings = [reading for reading in readings if reading is not full]
            except Exception as error:
                self._read_apart(readings, error)
                return
            else:
                return

    def _read_apart(self, readings: Sequence[Reading], error: Exception) -> None:
        """After a step that failed: its slots' state is undefined, and only one text may be to blame."""
        if len(readings) == 1:
            self._lose(readings[0], "a plug-in step", error)
            return
        for reading in readings:
            self._counts["retries"] += 1
            self._give_back(reading)
            reading.queue_anew()
            self._read_together([reading])

    def _step(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            if reading.slot is None:
                reading.slot = self._runtime.open()
        self._counts["plugin_forwards"] += 1
        started = time.perf_counter()
        output = self._runtime.step([reading.next_step(reading.slot or 0) for reading in readings])
        seconds = time.perf_counter() - started
        self._counts["plugin_us"] += round(1e6 * seconds)
        if self._observe is not None:
            self._observe(seconds)
        for i, reading in enumerate(readings):
            reading.heard(output.log_probs[i].clone(), self._reach)
            if reading.alpha is None:
                logit = float(output.weight_logits[i])
                alpha = self._evidence.alpha(logit, output.log_probs[i], reading.named)
                self._gate.remember(reading.key, alpha)

    def _say(self, reading: Reading) -> Words | None:
        """What the plug-in says about the next token, None for nothing.

        It says nothing after the end of the answer. In the middle of a character that its tokenizer has no
        bytes for it can only finish the token it began.
        """
        if reading.is_lost or not reading.is_open or reading.text is None or reading.text.ended:
            return None
        written = reading.output_ids[-self._reach :] if self._reach else ()
        owed = self._book.owed(written, reading.said_before)
        log_probs = reading.said_before(0)
        if log_probs is not None and reading.text.reaches_end:
            return Words(log_probs, owed)
        if owed is None:
            return None
        return Words(reading.history[max(reading.history)], owed.only())

    def _lose(self, reading: Reading, what: str, error: Exception) -> None:
        reading.is_lost = True
        self._give_back(reading)
        self._counts["lost"] += 1
        if self._counts["lost"] == 1:
            logger.warning("onceedit: %s failed; the LLM answers this request alone", what, exc_info=error)


def _reading_of(event: Open) -> Reading:
    alpha = event.alpha
    return Reading(
        event.prompt_ids,
        list(event.output_ids),
        event.named,
        alpha,
        is_open=alpha is not None and alpha > 0.0,
    )


def _sync_one(reading: Reading) -> bool:
    """Translate one output token; False where there is none left."""
    is_behind = reading.num_synced < len(reading.output_ids)
    reading.sync_outputs(reading.num_synced + 1)
    return is_behind


def _answer_of(reading: Reading | None, said: object) -> Answer:
    if reading is None:
        return Answer(State.UNKNOWN)
    if reading.is_lost:
        return Answer(State.LOST, reading.alpha)
    if not reading.is_open:
        return Answer(State.CLOSED, reading.alpha)
    if reading.text is None or reading.text.ended:
        return Answer(State.ENDED, reading.alpha)
    return Answer(State.SILENT if said is None else State.SPEAKING, reading.alpha)
