"""What vLLM does not tell a processor, but the functions that call it know.

Read from the stack, once a request and never once a token. Where vLLM renames what is looked for here, a
request is no longer told apart and is treated like any other; tests/integration/runner/test_callers.py
notices.
"""

from __future__ import annotations

from traceback import walk_stack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import VllmConfig

#: The two calls by which vLLM's executors let a worker measure its memory and warm up, before the first
#: request is served. Everything that arrives under them is made up.
_WARM_UP = frozenset({"determine_available_memory", "compile_or_warm_up_model"})


def is_warming_up() -> bool:
    """True inside a worker's profiling or warm-up.

    The made-up requests themselves do not say so: V2 warms up with
    ``SamplingParams.for_sampler_warmup()``, vLLM 0.33 also with ``SamplingParams(temperature=0)``, which is
    what a user would send.
    """
    return any(frame.f_code.co_name in _WARM_UP for frame, _ in walk_stack(None))


def front_end_config() -> VllmConfig | None:
    """The configuration of the engine whose front end is admitting a request; None outside of one.

    ``validate_params`` is a class method, called in another process than the one that holds the
    processors, with the request's parameters alone. Its caller's caller is the
    ``vllm.v1.engine.input_processor.InputProcessor`` of one engine, which has the configuration.
    """
    from vllm.v1.engine.input_processor import InputProcessor

    for frame, _ in walk_stack(None):
        owner = frame.f_locals.get("self")
        if isinstance(owner, InputProcessor):
            return owner.vllm_config
    return None
