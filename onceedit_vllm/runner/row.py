"""One request while vLLM serves it, as its row of the logits sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onceedit_vllm.runner.options import DEFAULT_OPTIONS, RequestOptions

if TYPE_CHECKING:
    from onceedit_vllm.runner.penalties import Penalties
    from onceedit_vllm.runner.scope import Verdict


@dataclass
class Row:
    """What a request asked for, and what the plug-in's host has been told of it.

    Attributes:
        prompt_ids: The prompt, in LLM tokens.
        options: The request's own control.
        want_search: True for plain greedy requests, which get the search result; False where the
            distribution itself is needed (sampling, penalties, logit bias, logprobs).
        logit_bias: LLM token to bias, as vLLM has already added it to the logits.
        penalties: As vLLM has already laid them on the logits; None where it has not, or there are none.
        max_tokens: Longest output; None: no limit of the request's own.
        output_ids: LLM tokens generated so far.
        scope: What the edits' subjects say about the prompt.
        named: The edits whose subject the prompt names.
        asked: What the plug-in reads instead of the prompt, mostly a part of it; None: the prompt.
        mention_opens: A named subject is enough, and the prompt names one.
        epoch: The pack that it was begun with; None: the host's active one.
        alpha: What the host has decided on, None until it has.
        is_stopped: True once the plug-in was lost in the middle of this answer, which must end.
        is_over: True once this request needs nothing more: it is the LLM's alone from now on.
        number: Which request it is since the start, the same on all ranks; None before it was admitted.
        handle: Its name at the host; None while the host does not follow it.
        num_sent: Output tokens that the host has been told of.
    """

    prompt_ids: Sequence[int]
    options: RequestOptions = DEFAULT_OPTIONS
    want_search: bool = True
    logit_bias: Mapping[int, float] | None = None
    penalties: Penalties | None = None
    max_tokens: int | None = None
    output_ids: list[int] = field(default_factory=list)
    scope: Verdict = "weight"
    named: tuple[int, ...] = ()
    asked: Sequence[int] | None = None
    mention_opens: bool = False
    epoch: int | None = None
    alpha: float | None = None
    is_stopped: bool = False
    is_over: bool = False
    number: int | None = None
    handle: int | None = None
    num_sent: int = 0

    @property
    def forced_alpha(self) -> float | None:
        """The request's own alpha, 1 where a named subject is enough, None where [WEIGHT] is asked."""
        return self.options.alpha if self.options.alpha is not None or not self.mention_opens else 1.0

    @property
    def read_ids(self) -> Sequence[int]:
        """What the plug-in reads before the answer, in LLM tokens."""
        return self.prompt_ids if self.asked is None else self.asked

    @property
    def is_at_its_last_token(self) -> bool:
        """True where the token that is sampled now ends the request, whatever it is."""
        return self.max_tokens is not None and len(self.output_ids) + 1 >= self.max_tokens

    @property
    def is_begun(self) -> bool:
        """True where the edits may have written some of the answer."""
        return self.alpha is not None and bool(self.output_ids)
