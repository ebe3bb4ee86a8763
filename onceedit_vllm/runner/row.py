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
    from onceedit_vllm.runner.scope import Verdict


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
        scope: What the edits' subjects say about the prompt.
        named: The edits whose subject the prompt names.
        alpha: What the plug-in says for the edits, or the request; None until the gate has decided.
        gated: True when the edits take part in this request.
        failed: True once the plug-in failed on this row; the LLM answers alone from then on.
        key: The prompt's name in the gate's memory.
        slot: The plug-in's slot, None while it has none.
        text: The same text in plug-in tokens.
        num_synced: Output tokens that the plug-in has been told of.
        history: (V_s,) log-probabilities the plug-in gave, by the number of output tokens before.
    """

    prompt_ids: Sequence[int]
    options: RequestOptions = DEFAULT_OPTIONS
    want_search: bool = True
    logit_bias: Mapping[int, float] | None = None
    output_ids: list[int] = field(default_factory=list)
    scope: Verdict = "weight"
    named: tuple[int, ...] = ()
    alpha: float | None = None
    gated: bool = False
    failed: bool = False
    key: str = ""
    slot: int | None = None
    text: SyncedText | None = None
    num_synced: int = 0
    history: dict[int, torch.Tensor] = field(default_factory=dict)
    _rollback: int = 0
    _pending: list[int] = field(default_factory=list)

    def queue_prompt(self, text: SyncedText) -> None:
        """Let the plug-in read the prompt at its next step."""
        self.text = text
        self._pending = list(text.ids)

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

    def take_step(self, slot: int) -> PlugInStep:
        """What the plug-in has to read now; nothing is pending afterwards."""
        step = PlugInStep(slot, self._rollback, tuple(self._pending))
        self._rollback, self._pending = 0, []
        return step

    def heard(self, log_probs: torch.Tensor, reach: int) -> None:
        """Keep what the plug-in says about the next token, and the last ``reach`` things it said."""
        self.history[self.num_synced] = log_probs
        for position in [p for p in self.history if p < self.num_synced - reach]:
            del self.history[position]

    def said_before(self, num_tokens: int) -> torch.Tensor | None:
        """What the plug-in said before the last output tokens, None where it was not asked."""
        return self.history.get(len(self.output_ids) - num_tokens)
