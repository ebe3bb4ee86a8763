"""One decoding step over the rows of a batch, the same for both runners.

Nothing here raises: off the output rank an exception hangs the engine, on it the engine dies. A row that
the plug-in cannot follow is left to the LLM alone; it is counted, and said once.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.plugin.gate import prompt_key
from onceedit_vllm.plugin.packets import Answer, Answers, Append, Close, Event, Open, State
from onceedit_vllm.runner.scope import Scopes

if TYPE_CHECKING:
    from onceedit_vllm.config import WeightKind
    from onceedit_vllm.edits import EditRecord
    from onceedit_vllm.fusion.fuser import Fuser
    from onceedit_vllm.fusion.lists import Lists
    from onceedit_vllm.plugin.host import PlugInClient
    from onceedit_vllm.runner.decisions import DecisionsLog
    from onceedit_vllm.runner.metrics import Measure
    from onceedit_vllm.runner.ranks import Ranks
    from onceedit_vllm.runner.row import Row
    from onceedit_vllm.runner.scope import Look, PromptScope

logger = logging.getLogger("onceedit_vllm.runner")

#: How often in one step a request is opened anew: a host that has restarted does not know it, and then it may
#: know the pack no more that was active when this engine last heard of it.
_NUM_REOPENED = 2
_FOLLOWED = (State.SPEAKING, State.SILENT, State.UNKNOWN)

IndexedRow = tuple[int, "Row"]
_Speaking = tuple[int, "Row", Answer]


class FusionStep:
    """Tells the plug-in's host what happened to the requests, and fuses what it answers.

    Args:
        plugin: This engine's end of the host.
        fuser: Fuses the two distributions and searches.
        scope_of: Makes of a pack's edits what decides, before the gate, which prompts they can concern; None:
            they can concern all.
        weight: What an open row is fused with: 1 ("decided"), or alpha.
        log: Where decisions are written down; None: nowhere.
        eos_id: The LLM's end-of-sequence token, which ends an answer that the plug-in was lost in; None: such
            an answer is left to the LLM.
        observe: Told what is measured of every step and decision.
        ranks: The tensor-parallel ranks of the engine, of which this one is one; None: it is alone.
    """

    def __init__(
        self,
        plugin: PlugInClient,
        fuser: Fuser,
        scope_of: Callable[[Sequence[EditRecord]], PromptScope] | None = None,
        weight: WeightKind = "decided",
        log: DecisionsLog | None = None,
        eos_id: int | None = None,
        observe: Callable[[Measure, float], None] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._plugin = plugin
        self._fuser = fuser
        self._scopes = Scopes(plugin, scope_of)
        self._weight = weight
        self._log = log
        self._eos_id = eos_id
        self._observe = observe or (lambda name, value: None)
        self._ranks = ranks
        self._numbers = itertools.count()
        self.counts: Counter[str] = Counter()
        self._waited = 0.0  # seconds

    @property
    def is_first(self) -> bool:
        """True where this rank counts and logs for the engine."""
        return self._ranks is None or self._ranks.is_first

    def tally(self) -> dict[str, int]:
        """Everything counted so far: requests here, texts at the host, rows in the fuser.

        Waits for the GPU.
        """
        waited = {"wait_us": round(1e6 * self._waited)}
        return {**self.counts, **waited, **self._fuser.counts()._asdict(), **self._plugin.tally()}

    def admit(self, row: Row) -> bool:
        """Look for subjects in a new request's prompt; False where the edits do not concern it.

        Such a request needs nothing more from here. All ranks admit the same requests in the same order.
        Never raises.
        """
        row.number = next(self._numbers)
        try:
            self._look(row)
        except Exception as error:
            self._report("looking for subjects", error)
            return False
        if row.scope == "out":
            self._note("out_of_scope", row, None)
        return row.scope != "out"

    def _look(self, row: Row) -> None:
        def look() -> Look:
            return self._scopes.look(row.prompt_ids, row.options.alpha is not None, row.options.text)

        number = -1 if row.number is None else row.number
        found = look() if self._ranks is None else self._ranks.share_look(number, look)
        row.epoch, row.scope, row.named, row.mention_opens, row.asked = found

    def begin(self, rows: Sequence[Row]) -> None:
        """Tell the host what is new of these requests, so that the plug-in can read beside the LLM.

        Told once, however often this is called. Never raises.
        """
        try:
            events = [event for row in rows if (event := self._event_of(row)) is not None]
            if events:
                self._plugin.send(events)
        except Exception as error:
            self._report("telling the plug-in", error)

    def _event_of(self, row: Row) -> Event | None:
        is_told = row.handle is not None and row.num_sent == len(row.output_ids)
        if is_told or row.is_over or row.is_stopped:
            return None
        start, row.num_sent = row.num_sent, len(row.output_ids)
        if row.handle is not None:
            return Append(row.handle, start, row.output_ids[start:])
        row.handle = next(self._numbers) if row.number is None else row.number
        # What was decided once stays, also where the pack has changed meanwhile.
        alpha = row.forced_alpha if row.alpha is None else row.alpha
        # Of a greedy row it can be certified that nothing was cut that matters; of any other it would show.
        whole = not row.want_search
        return Open(row.handle, row.read_ids, row.output_ids, row.named, alpha, row.epoch, whole)

    def close(self, row: Row) -> None:
        """Forget a request: finished, aborted, preempted, or its slot taken by another. Never raises.

        The row itself may go on later; the host then reads it again.
        """
        handle, row.handle, row.num_sent = row.handle, None, 0
        if handle is None:
            return
        try:
            self._plugin.send([Close(handle)])
        except Exception as error:
            self._report("closing a request", error)

    def finish(self, logits: torch.Tensor, rows: Sequence[IndexedRow]) -> None:
        """Replace, in place, the logits of the rows whose gate is open. Never raises.

        Afterwards rows that need nothing more from here are over.

        Args:
            logits: (num_rows, V_l) float32; untouched rows keep their very bits.
            rows: (row index in ``logits``, request), each request at most once.
        """
        followed = [(i, row) for i, row in rows if not (row.is_over or row.is_stopped)]
        begun = [row.is_begun for _, row in followed]
        if followed and not self._go(logits, followed):
            for (_, row), is_begun in zip(followed, begun, strict=True):
                self._lose(row, is_begun)
        for i, row in rows:
            if row.is_stopped:
                self._end(logits[i])
            if row.is_at_its_last_token or row.is_over:
                row.is_over = True
                self.close(row)
        if self._ranks is not None:
            self._ranks.check(logits)

    def _go(self, logits: torch.Tensor, rows: Sequence[IndexedRow]) -> bool:
        """Take the step; False where it failed. Where one rank fails, none has touched the logits."""
        taken = [i for i, _ in rows]
        before = None if self._ranks is None else logits[taken]
        is_good = True
        try:
            self._ask_and_fuse(logits, rows)
        except Exception as error:
            self._report("a step with the plug-in", error)
            is_good = False
        if self._ranks is not None and before is not None:
            is_good = self._ranks.agree(is_good)
            if not is_good:
                logits[taken] = before
        return is_good

    def _ask_and_fuse(self, logits: torch.Tensor, rows: Sequence[IndexedRow]) -> None:
        started = time.perf_counter()
        answers = self._take([row for _, row in rows])
        taken = time.perf_counter()
        speaking = []
        for (i, row), answer in zip(rows, answers.of, strict=True):
            self._decide(row, answer)
            if answer.state == State.SPEAKING:
                speaking.append((i, row, answer))
        self._fuse(logits, speaking, answers)
        self._waited += taken - started
        self._observe("wait_seconds", taken - started)
        self._observe("fuse_seconds", time.perf_counter() - taken)

    def _take(self, rows: Sequence[Row]) -> Answers:
        """The host's answers. What it does not know, it is told once more, from the beginning."""
        self.begin(rows)
        answers = self._plugin.take(_wanted(rows))
        for _ in range(_NUM_REOPENED):
            unknown = [
                row for row, answer in zip(rows, answers.of, strict=True) if answer.state == State.UNKNOWN
            ]
            if not unknown:
                break
            self._reopen(unknown)
            answers = self._take_again(rows, answers)
        return answers

    def _reopen(self, rows: Sequence[Row]) -> None:
        """Tell the host of these as of new ones; what was decided already stays."""
        self.counts["reopened"] += len(rows)
        for row in rows:
            row.handle, row.num_sent, row.epoch = None, 0, None
            if row.alpha is None:
                self._look(row)
        self.begin(rows)

    def _take_again(self, rows: Sequence[Row], before: Answers) -> Answers:
        """Ask once more about all but those that the host has forgotten by answering."""
        asked = [i for i, answer in enumerate(before.of) if answer.state in _FOLLOWED]
        answers = self._plugin.take(_wanted([rows[i] for i in asked]))
        found = list(before.of)
        for i, answer in zip(asked, answers.of, strict=True):
            found[i] = answer
        return answers._replace(of=found)

    def _decide(self, row: Row, answer: Answer) -> None:
        """Note what the host has decided, the first time it says so."""
        if answer.state in (State.LOST, State.UNKNOWN):
            self.counts["failures"] += 1
            self._lose(row, row.is_begun)
            return
        if row.alpha is None:
            row.alpha = answer.alpha
            self._observe("alpha", answer.alpha or 0.0)
            self._note("bypassed" if answer.state == State.CLOSED else "gated", row, answer.alpha)
        row.is_over = answer.state not in (State.SPEAKING, State.SILENT)

    def _note(self, decision: str, row: Row, alpha: float | None) -> None:
        self.counts[decision] += 1
        if self._log is not None and self._log.is_writable:
            self._log.record(prompt_key(row.prompt_ids), alpha, decision == "gated", row.scope)

    def _fuse(self, logits: torch.Tensor, speaking: Sequence[_Speaking], answers: Answers) -> None:
        """Fuse; where a cut list is not enough to tell the winner, with the whole one."""
        if not speaking or answers.lists is None:
            return
        self._take_off(logits, speaking)
        try:
            uncertified = self._fuse_lists(logits, speaking, answers.lists, answers.log_probs)
            if uncertified:
                rest = [speaking[k] for k in uncertified]
                handles = [row.handle for _, row, _ in rest if row.handle is not None]
                self._fuse_lists(logits, rest, self._plugin.more(handles))
        finally:
            self._put_back(logits, speaking)

    def _fuse_lists(
        self,
        logits: torch.Tensor,
        speaking: Sequence[_Speaking],
        lists: Lists,
        log_probs: torch.Tensor | None = None,
    ) -> list[int]:
        return self._fuser.fuse_rows_inplace(
            logits,
            _on_device([i for i, _, _ in speaking], logits.device),
            lists,
            _on_device([self._weight_of(row, answer) for _, row, answer in speaking], logits.device),
            _on_device([row.want_search for _, row, _ in speaking], logits.device),
            log_probs,
        )

    def _weight_of(self, row: Row, answer: Answer) -> float:
        """The plug-in's weight in Eq. 8, on a row whose gate is open.

        Not alpha, unless asked for: at 0.2 the edit would lose to any LLM token above 0.25, though the
        gate has decided for it.
        """
        is_decided = self._weight == "decided" and row.options.alpha is None
        return 1.0 if is_decided else answer.alpha or 0.0

    @staticmethod
    def _take_off(logits: torch.Tensor, speaking: Sequence[_Speaking]) -> None:
        """What belongs to the answer, and not to the LLM's opinion, is off while they are fused."""
        for i, row, _ in speaking:
            if row.penalties is not None:
                row.penalties.lift(logits[i], row.prompt_ids, row.output_ids)
            _shift_bias(logits, i, row, -1.0)

    @staticmethod
    def _put_back(logits: torch.Tensor, speaking: Sequence[_Speaking]) -> None:
        for i, row, _ in speaking:
            _shift_bias(logits, i, row, 1.0)
            if row.penalties is not None:
                row.penalties.lay(logits[i], row.prompt_ids, row.output_ids)

    def _lose(self, row: Row, is_begun: bool) -> None:
        """The plug-in cannot go on with this row: an answer of its own ends, any other is the LLM's."""
        row.is_stopped = is_begun and self._eos_id is not None
        row.is_over = not row.is_stopped
        self.close(row)

    def _end(self, row: torch.Tensor) -> None:
        """Leave (V_l,) logits nothing but the end of the answer, unless that is masked."""
        ended = torch.full_like(row, -torch.inf)
        ended[self._eos_id] = 0.0
        row.copy_(torch.where(row[self._eos_id] > -torch.inf, ended, row))

    def _report(self, what: str, error: Exception) -> None:
        self.counts["failures"] += 1
        if self.counts["failures"] == 1:
            logger.warning("onceedit: %s failed; the LLM answers these requests alone", what, exc_info=error)


def _wanted(rows: Sequence[Row]) -> list[tuple[int, int]]:
    return [(-1 if row.handle is None else row.handle, row.num_sent) for row in rows]


def _shift_bias(logits: torch.Tensor, i: int, row: Row, sign: float) -> None:
    if row.logit_bias:
        ids = _on_device(list(row.logit_bias), logits.device)
        logits[i, ids] += sign * _on_device(list(row.logit_bias.values()), logits.device)


def _on_device(values: list[Any], device: torch.device) -> torch.Tensor:
    """A small tensor on the device; from pinned memory, so that the host need not wait for the copy."""
    return torch.tensor(values, pin_memory=device.type == "cuda").to(device, non_blocking=True)
