"""One request as the plug-in reads it. A pure function of its prompt and output tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from onceedit_vllm.plugin.gate import prompt_key
from onceedit_vllm.plugin.runtime import PlugInStep

if TYPE_CHECKING:
    import torch

    from onceedit_vllm.plugin.textsync import SyncedText, SyncUpdate


@dataclass
class Reading:
    """How far the plug-in has read a request, and what it said.

    Attributes:
        prompt_ids: The prompt, in LLM tokens.
        output_ids: LLM tokens generated so far.
        named: The edits whose subject the prompt names.
        alpha: What the plug-in says for the edits, or the request; None until the gate has decided.
        is_open: True when the edits take part in this request.
        is_lost: True once the plug-in failed on it.
        slot: The plug-in's slot, None while it has none.
        text: The same text in plug-in tokens, None before it is needed.
        num_synced: Output tokens that the plug-in has been told of.
        history: (V_s,) log-probabilities the plug-in gave, by the number of output tokens before.
    """

    prompt_ids: Sequence[int]
    output_ids: list[int] = field(default_factory=list)
    named: tuple[int, ...] = ()
    alpha: float | None = None
    is_open: bool = False
    is_lost: bool = False
    slot: int | None = None
    text: SyncedText | None = None
    num_synced: int = 0
    history: dict[int, torch.Tensor] = field(default_factory=dict)
    _rollback: int = 0
    _pending: list[int] = field(default_factory=list)

    @cached_property
    def key(self) -> str:
        """The prompt's name in the gate's memory."""
        return prompt_key(self.prompt_ids)

    def queue_prompt(self, text: SyncedText) -> None:
        """Let the plug-in read the prompt at its next step."""
        self.text = text
        self._pending = list(text.ids)

    def queue_anew(self) -> None:
        """Let the plug-in read all it has been told of once more: its slot is gone."""
        assert self.text is not None
        self.slot, self._rollback, self._pending = None, 0, list(self.text.ids)

    def sync_outputs(self, end: int) -> None:
        """Translate the output tokens up to ``end`` that the plug-in has not been told of."""
        assert self.text is not None
        new_ids = self.output_ids[self.num_synced : end]
        if new_ids:
            self.num_synced = end
            self._merge(self.text.extend(new_ids))

    def _merge(self, update: SyncUpdate) -> None:
        kept = max(0, len(self._pending) - update.rollback)
        self._rollback += max(0, update.rollback - len(self._pending))
        self._pending = [*self._pending[:kept], *update.new_ids]

    @property
    def num_pending(self) -> int:
        """Plug-in tokens that the plug-in has not read yet."""
        return len(self._pending)

    def next_step(self, slot: int) -> PlugInStep:
        """What the plug-in has to read now; pending until :meth:`heard`."""
        return PlugInStep(slot, self._rollback, tuple(self._pending))

    def heard(self, log_probs: torch.Tensor, reach: int) -> None:
        """Keep what the plug-in says after all that was pending, and the last ``reach`` things it said.

        Args:
            log_probs: (V_s,), a tensor of its own: a view would keep the whole batch's alive.
            reach: How many output tokens back its words still matter.
        """
        self._rollback, self._pending = 0, []
        self.history[self.num_synced] = log_probs
        for position in [p for p in self.history if p < self.num_synced - reach]:
            del self.history[position]

    def said_before(self, num_tokens: int) -> torch.Tensor | None:
        """What the plug-in said before the last output tokens, None where it was not asked."""
        return self.history.get(len(self.output_ids) - num_tokens)
