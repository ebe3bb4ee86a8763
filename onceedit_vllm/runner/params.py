"""What vLLM's sampling parameters mean for a row. The same for both runners."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.options import DEFAULT_OPTIONS, parse_request_options, refuse_override
from onceedit_vllm.runner.row import Row

if TYPE_CHECKING:
    from vllm import SamplingParams

    from onceedit_vllm.config import RequestOverride

logger = logging.getLogger("onceedit_vllm.runner")


def row_of(
    params: SamplingParams, prompt_ids: Sequence[int], allowed: RequestOverride, counts: Counter[str]
) -> Row | None:
    """Make the row of a request, None when the request switched the edits off.

    Args:
        params: The request's parameters.
        prompt_ids: Its prompt, in LLM tokens.
        allowed: What a request may decide; anything beyond is left out.
        counts: Counts what was left out, as ``ignored_options``.
    """
    try:
        options = parse_request_options(params.extra_args)
        refuse_override(options, allowed)
    except BadInputError as error:
        # Admission has refused it already, where it could; a worker must not die of it all the same.
        counts["ignored_options"] += 1
        if counts["ignored_options"] == 1:
            logger.warning("onceedit: the options of a request are ignored: %s", error)
        options = DEFAULT_OPTIONS
    if not options.enabled:
        return None
    return Row(
        prompt_ids=prompt_ids,
        options=options,
        want_search=wants_search(params),
        logit_bias=params.logit_bias or None,
    )


def wants_search(params: SamplingParams) -> bool:
    """True for requests of which only the highest logit matters.

    The search result is an argmax with almost no shape (its top probability is about twice the
    uniform one), so whatever looks at more than the top token gets the fused distribution instead.
    """
    return params.temperature == 0.0 and not _is_looked_at(params)


def _is_looked_at(params: SamplingParams) -> bool:
    """True where single probabilities matter: they are added to, or shown."""
    return (
        params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
        or params.repetition_penalty != 1.0
        or params.logprobs is not None
        or bool(params.logit_bias)
    )
