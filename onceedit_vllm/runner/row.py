"""The state of one request while vLLM serves it. A pure function of its prompt and output tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onceedit_vllm.plugin.host import PlugInStep
from onceedit_vllm.runner.options import DEFAULT_OPTIONS, RequestOptions

if TYPE_CHECKING:
    import torch

    from onceedit_vllm.plugin.textsync import SyncedText, SyncUpdate


@dataclass
class Row:
    """One request: what it asked for, what the gate said, and how far the plug-in has read.

    Attributes:
        prompt_ids: The prompt, in LLM tokens.
        options: The request's own control.
        want_search: True for plain greedy requests, which get the search result; False where the
            distribution itself is needed (sampling, penalties, logit bias, logprobs).
        logit_bias: LLM token to bias, as vLLM has already added it to the logits.
        output_ids: LLM tokens generated so far.
        alpha: The ensemble weight, None until the gate has decided.
        gated: True when the edits take part in this request.
        key: The prompt's name in the gate's memory.
        failed: True once the plug-in failed on this row; the LLM answers alone from then on.
    """

    prompt_ids: Sequence[int]
    options: RequestOptions = DEFAULT_OPTIONS
    want_search: bool = True
    logit_bias: Mapping[int, float] | None = None
    output_ids: list[int] = field(default_factory=list)
    alpha: float | None = None
    gated: bool = False
    failed: bool = False
    key: str = ""
    slot: int | None = None
    text: SyncedText | None = None
    log_probs: torch.Tensor | None = None
    _num_synced: int = 0
    _rollback: int = 0
    _pending: list[int] = field(default_factory=list)

    def queue_prompt(self, text: SyncedText) -> None:
        """Let the plug-in read the prompt at its next step."""
        self.text = text
        self._pending = list(text.ids)

    def sync_outputs(self) -> bool:
        """Translate output tokens the plug-in has not read yet.

        Returns:
            True when the plug-in can speak for the next token: the text ends in a whole character
            and the LLM has not ended its answer.
        """
        assert self.text is not None
        new_ids = self.output_ids[self._num_synced :]
        if new_ids:
            self._num_synced = len(self.output_ids)
            self._merge(self.text.extend(new_ids))
        return self.text.ready and not self.text.ended

    def _merge(self, update: SyncUpdate) -> None:
        kept = max(0, len(self._pending) - update.rollback)
        self._rollback += max(0, update.rollback - len(self._pending))
        self._pending = [*self._pending[:kept], *update.new_ids]

    def take_step(self) -> PlugInStep | None:
        """What the plug-in has to read now, None when it is up to date."""
        if not self._pending:
            return None
        assert self.slot is not None
        step = PlugInStep(self.slot, self._rollback, tuple(self._pending))
        self._rollback, self._pending = 0, []
        return step
