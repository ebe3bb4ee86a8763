"""The processor and its settings among what the user gave vLLM of the same kind. Nothing is overwritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onceedit_vllm.errors import BadInputError

#: The processor's name for vLLM.
PROCESSOR = "onceedit_vllm:OnceEditLogitsProcessor"
KEY = "onceedit"


def with_processor(listed: Sequence[str] | None) -> list[str]:
    """The user's processors and ours.

    Ours is the last unless it is listed already: what others forbid stays forbidden, and the search looks
    among the rest.
    """
    names = list(listed or ())
    return names if PROCESSOR in names else [*names, PROCESSOR]


def with_settings(additional_config: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> dict[str, Any]:
    """The user's ``--additional-config`` with our settings, which may be given partly there.

    Args:
        additional_config: As vLLM has parsed it.
        ours: Settings that were given as options of our own.

    Raises:
        BadInputError: A setting is given in both ways, or ``"onceedit"`` holds no object.
    """
    theirs = dict(additional_config or {})
    settings = theirs.get(KEY, {})
    if not isinstance(settings, Mapping):
        raise BadInputError(f'--additional-config: "{KEY}" must be an object of settings, not {settings!r}.')
    twice = sorted(set(settings) & set(ours))
    if twice:
        names = ", ".join(twice)
        raise BadInputError(
            f'--additional-config: "{KEY}" gives {names}, and so do the options of this command. Give each '
            "setting once."
        )
    return {**theirs, KEY: {**settings, **ours}}
