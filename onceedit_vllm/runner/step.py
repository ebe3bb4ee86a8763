"""One decoding step over the rows of a batch, the same for both runners.

Nothing here raises: off the output rank an exception hangs the engine, on it the engine dies. A row
whose text cannot be followed is left to the LLM alone, and so are all gated rows of a step in which the
plug-in itself fails; it is counted, and said once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from onceedit_vllm.runner.gate import Gate, prompt_key
from onceedit_vllm.runner.row import Row

if TYPE_CHECKING:
    from onceedit_vllm.config import WeightKind
    from onceedit_vllm.evidence import Evidence
    from onceedit_vllm.fusion.fuser import Fuser
    from onceedit_vllm.fusion.owed import Owed
    from onceedit_vllm.plugin.host import PlugInHost, PlugInStep
    from onceedit_vllm.plugin.textsync import TextSync
    from onceedit_vllm.runner.scope import PromptScope, Verdict

logger = logging.getLogger("onceedit_vllm.runner")

IndexedRow = tuple[int, Row]


class FusionStep:
    """Gate, plug-in step, fusion.

    Args:
        host: Runs the plug-in.
        textsync: Translates LLM tokens to plug-in tokens.
        fuser: Fuses the two distributions and searches.
        gate: Decides which prompts the edits take part in.
        evidence: Weighs what the plug-in says for an edit.
        scope: Decides before the gate which prompts the edits can concern; None: all.
        weight: What an open row is fused with: 1 ("decided"), or alpha.
    """

    def __init__(
        self,
        host: PlugInHost,
        textsync: TextSync,
        fuser: Fuser,
        gate: Gate,
        evidence: Evidence,
        scope: PromptScope | None = None,
        weight: WeightKind = "decided",
    ) -> None:
        self._host = host
        self._textsync = textsync
        self._fuser = fuser
        self._gate = gate
        self._evidence = evidence
        self._scope = scope
        self._weight = weight
        # How many output tokens back the plug-in's words still matter.
        self._reach = fuser.book.reach
        self.counts: Counter[str] = Counter()

    def tally(self) -> dict[str, int]:
        """Everything counted so far: requests and failures here, rows in the fuser. Waits for the GPU."""
        return {**self.counts, **self._fuser.counts()._asdict()}

    def admit(self, row: Row) -> bool:
        """Look for subjects in a new request's prompt; False where the edits do not concern it.

        Such a request needs nothing more from here. Never raises.
        """
        try:
            row.scope, row.named = self._scope_of(row)
        except Exception as error:
            self._report("looking for subjects", error)
            return False
        if row.scope != "out":
            return True
        self.counts["out_of_scope"] += 1
        if self._gate.is_logging:
            self._gate.record(prompt_key(row.prompt_ids), None, False, row.scope)
        return False

    def _scope_of(self, row: Row) -> tuple[Verdict, tuple[int, ...]]:
        if row.options.alpha is not None:
            return "forced", ()
        return ("weight", ()) if self._scope is None else self._scope.of(row.prompt_ids)

    def close(self, row: Row) -> None:
        """Forget a request: finished, aborted, preempted, or its slot taken by another."""
        slot, row.slot = row.slot, None
        if slot is None:
            return
        try:
            self._host.close(slot)
        except Exception as error:
            self._report("closing a plug-in slot", error)

    def run(self, logits: torch.Tensor, rows: Sequence[IndexedRow]) -> None:
        """Replace, in place, the logits of the rows whose gate is open. Never raises.

        Args:
            logits: (num_rows, V_l) float32; untouched rows keep their very bits.
            rows: (row index in ``logits``, request), each request at most once.
        """
        try:
            self._decide([row for _, row in rows if row.alpha is None and not row.failed])
            gated = [(i, row) for i, row in rows if row.gated and not row.failed]
            self._catch_up([row for _, row in gated])
            self._fuse(logits, gated)
        except Exception as error:
            self._give_up([row for _, row in rows if row.gated or row.alpha is None], error)

    def _decide(self, rows: Sequence[Row]) -> None:
        """Take the gate's decision for requests seen for the first time."""
        undecided = self._each(rows, lambda row: not self._decide_without_plugin(row))
        # The n samples of one prompt share one look at it.
        self._read(list({row.key: row for row in reversed(undecided)}.values()))
        for row in undecided:
            alpha = self._gate.recall(row.key)
            if alpha is not None:
                self._settle(row, alpha, self._is_open(row, alpha))

    def _decide_without_plugin(self, row: Row) -> bool:
        """True when [WEIGHT] need not be asked, is remembered, or the prompt holds no text."""
        row.key = prompt_key(row.prompt_ids)
        text = self._textsync.start(row.prompt_ids)
        row.queue_prompt(text)
        forced = self._forced_alpha(row)
        if forced is not None:
            self._settle(row, forced, forced > 0.0)
            return True
        alpha = self._gate.recall(row.key) if text.ids else 0.0
        if alpha is None:
            return False
        self._settle(row, alpha, self._is_open(row, alpha))
        return True

    def _forced_alpha(self, row: Row) -> float | None:
        """The request's own alpha, 1 where a named subject is enough, None where [WEIGHT] is asked."""
        if row.options.alpha is not None:
            return row.options.alpha
        mention_opens = self._scope is not None and self._scope.mention_opens
        return 1.0 if mention_opens and row.scope == "subject" else None

    def _is_open(self, row: Row, alpha: float) -> bool:
        return self._gate.is_open(alpha, named=row.scope == "subject")

    def _settle(self, row: Row, alpha: float, gated: bool) -> None:
        row.alpha, row.gated = alpha, gated
        self.counts["gated" if gated else "bypassed"] += 1
        self._gate.record(row.key, alpha, gated, row.scope)
        if not gated:
            self.close(row)
            row.text = None
            row.history.clear()

    def _catch_up(self, rows: Sequence[Row]) -> None:
        """Let the plug-in read all output tokens.

        Usually that is one token and one round. A resumed request reads its last few tokens one by
        one, because what the plug-in said between them matters (see :class:`SpellingBook`).
        """
        behind = self._each(rows, self._sync_all_but_the_last)
        self._read(behind)
        while behind := self._each(behind, self._sync_one):
            self._read(behind)

    def _sync_all_but_the_last(self, row: Row) -> bool:
        """Translate all output tokens but the last few; False where there is nobody to read them."""
        if not self._is_followed(row):
            return False
        row.sync_outputs(max(row.num_synced, len(row.output_ids) - self._reach))
        return True

    @staticmethod
    def _sync_one(row: Row) -> bool:
        """Translate one output token; False where there is none left."""
        is_behind = row.num_synced < len(row.output_ids)
        row.sync_outputs(row.num_synced + 1)
        return is_behind

    def _each(self, rows: Sequence[Row], act: Callable[[Row], bool]) -> list[Row]:
        """The rows for which ``act`` is true; a row on which it fails is given up, and no other."""
        kept = []
        for row in rows:
            try:
                if act(row):
                    kept.append(row)
            except Exception as error:
                self._give_up([row], error)
        return kept

    def _is_followed(self, row: Row) -> bool:
        """False once the LLM has ended its answer; the plug-in's slot is free then."""
        if row.text is None or row.text.ended:
            self.close(row)
            return False
        return True

    def _read(self, rows: Sequence[Row]) -> None:
        """Let the plug-in read what each row has pending, and keep what it says."""
        stepping = [(row, self._step_of(row)) for row in rows if row.num_pending]
        if not stepping:
            return
        output = self._host.collect(self._host.submit([step for _, step in stepping]))
        for i, (row, _) in enumerate(stepping):
            row.heard(output.log_probs[i], self._reach)
            if row.alpha is None:
                weight_logit = float(output.weight_logits[i])
                alpha = self._evidence.alpha(weight_logit, output.log_probs[i], row.named)
                self._gate.remember(row.key, alpha)

    def _step_of(self, row: Row) -> PlugInStep:
        if row.slot is None:
            row.slot = self._host.open()
        return row.take_step(row.slot)

    def _fuse(self, logits: torch.Tensor, rows: Sequence[IndexedRow]) -> None:
        speaking = [(i, row, *said) for i, row in rows if (said := self._say(row)) is not None]
        if not speaking:
            return
        indexed = [(i, row) for i, row, _, _ in speaking]
        # A logit bias belongs to the answer, not to the LLM's opinion: off before fusion, on after.
        self._shift_biases(logits, indexed, -1.0)
        try:
            self._fuser.fuse_rows_inplace(
                logits,
                _on_device([i for i, _ in indexed], logits.device),
                torch.stack([log_probs for _, _, log_probs, _ in speaking]),
                _on_device([self._weight_of(row) for _, row in indexed], logits.device),
                _on_device([row.want_search for _, row in indexed], logits.device),
                [owed for _, _, _, owed in speaking],
            )
        finally:
            self._shift_biases(logits, indexed, 1.0)

    def _say(self, row: Row) -> tuple[torch.Tensor, Owed | None] | None:
        """What the plug-in says about a row's next token; None leaves the row to the LLM.

        It says nothing after the end of the answer. In the middle of a character it can only finish
        the token it began.
        """
        if row.failed or row.text is None or row.text.ended:
            return None
        owed = self._fuser.book.owed(row.output_ids[-self._reach :] if self._reach else (), row.said_before)
        log_probs = row.said_before(0)
        if log_probs is not None and row.text.ready:
            return log_probs, owed
        if owed is None:
            return None
        base = next(row.history[position] for position in sorted(row.history, reverse=True))
        return base, owed.only()

    def _weight_of(self, row: Row) -> float:
        """The plug-in's weight in Eq. 8, on a row whose gate is open.

        Not alpha, unless asked for: at 0.2 the edit would lose to any LLM token above 0.25, though the
        gate has decided for it.
        """
        is_decided = self._weight == "decided" and row.options.alpha is None
        return 1.0 if is_decided else row.alpha or 0.0

    @staticmethod
    def _shift_biases(logits: torch.Tensor, rows: Sequence[IndexedRow], sign: float) -> None:
        for i, row in rows:
            if row.logit_bias:
                ids = _on_device(list(row.logit_bias), logits.device)
                logits[i, ids] += sign * _on_device(list(row.logit_bias.values()), logits.device)

    def _give_up(self, rows: Sequence[Row], error: Exception) -> None:
        self._report("a plug-in step", error)
        for row in rows:
            row.failed = True
            self.close(row)

    def _report(self, what: str, error: Exception) -> None:
        self.counts["failures"] += 1
        if self.counts["failures"] == 1:
            logger.warning("onceedit: %s failed; the LLM answers these requests alone", what, exc_info=error)


def _on_device(values: list[Any], device: torch.device) -> torch.Tensor:
    """A small tensor on the device; from pinned memory, so that the host need not wait for the copy."""
    return torch.tensor(values, pin_memory=device.type == "cuda").to(device, non_blocking=True)
