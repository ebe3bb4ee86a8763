"""What vLLM's sampling parameters mean for a row. The same for both runners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.options import parse_request_options
from onceedit_vllm.runner.row import Row

if TYPE_CHECKING:
    from vllm import SamplingParams


def row_of(params: SamplingParams, prompt_ids: Sequence[int]) -> Row | None:
    """Make the row of a request, None when the request switched the edits off."""
    try:
        options = parse_request_options(params.extra_args)
    except BadInputError:
        # Admission has refused it already; a worker must not die of it all the same.
        return None
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
    shape_matters = (
        params.temperature > 0.0
        or params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
        or params.repetition_penalty != 1.0
        or params.logprobs is not None
        or bool(params.logit_bias)
    )
    return not shape_matters


def is_sampler_warmup(params: SamplingParams) -> bool:
    """True for the made-up requests of the V2 runner's warm-up.

    `SamplingParams.for_sampler_warmup` is not public: where it is gone, no request counts as one.
    """
    warmup = getattr(type(params), "for_sampler_warmup", None)
    return warmup is not None and bool(params == warmup())
