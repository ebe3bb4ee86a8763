"""What a request is refused for before it reaches the engine: HTTP 400, or an error of ``LLM.generate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.callers import front_end_config
from onceedit_vllm.runner.options import DEFAULT_OPTIONS, parse_request_options, refuse_override

if TYPE_CHECKING:
    from vllm import SamplingParams


def admit(params: SamplingParams) -> None:
    """Refuse a request that asks for something it cannot have.

    Raises:
        BadInputError: Its options are malformed, the engine does not let a request decide them, or it is a
            step of beam search.
    """
    options = parse_request_options(params.extra_args)
    refuse_beam_search(params)
    if options == DEFAULT_OPTIONS:
        return
    from onceedit_vllm.runner.assembly import serving_config

    config = front_end_config()
    # Where the engine's settings cannot be seen from here, the worker leaves such options out.
    if config is not None:
        refuse_override(options, serving_config(config.additional_config).request_override)


def refuse_beam_search(params: SamplingParams) -> None:
    """Refuse the requests that vLLM's beam search makes.

    It keeps beams by the log-probabilities from before the processors, and sends every beam as a new
    prompt, so that the gate would decide anew in the middle of an answer. The edits would be lost without
    a word. Its requests are told apart by a shape that nobody else asks for: one token, an even number of
    logprobs, no text, watermarking off in so many words, and never any ``extra_args``
    (vllm/entrypoints/generate/beam_search/{online,offline}.py).

    Raises:
        BadInputError: The request has that shape.
    """
    if (
        params.max_tokens == 1
        and params.logprobs
        and params.logprobs % 2 == 0
        and params.detokenize is False
        and params.watermarking is False
        and not params.extra_args
    ):
        raise BadInputError(
            "beam search does not work with OnceEditLogitsProcessor: vLLM scores beams before the edits are "
            "fused in, so the answers would not hold them. Ask for samples (n), or send the request to an "
            'engine without the processor. If this is not beam search, say so with extra_args {"onceedit": '
            "true}."
        )
