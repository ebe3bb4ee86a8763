"""The processor and its settings among what the user gave vLLM of the same kind. Nothing is overwritten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.extension import EXTENSION, refuse_other_extension

#: The processor's name for vLLM.
PROCESSOR = "onceedit_vllm:OnceEditLogitsProcessor"
KEY = "onceedit"
#: What adds the routes by which packs are changed.
MIDDLEWARE = "onceedit_vllm.runner.pack_updates.PackUpdates"


def with_processor(listed: Sequence[str] | None) -> list[str]:
    """The user's processors and ours.

    Ours is the last unless it is listed already: what others forbid stays forbidden, and the search looks
    among the rest.
    """
    names = list(listed or ())
    return names if PROCESSOR in names else [*names, PROCESSOR]


def with_extension(named: str, is_needed: bool) -> str:
    """The user's worker extension, or ours where there is none.

    Args:
        named: The user's, empty where there is none.
        is_needed: Packs are to be changed through it.

    Raises:
        BadInputError: It is needed, and the user's cannot do it.
    """
    if named and is_needed:
        refuse_other_extension(named)
    return named or EXTENSION


def with_updates(listed: Sequence[str] | None) -> list[str]:
    """The user's middleware, and the one that adds the routes for packs."""
    names = list(listed or ())
    return names if MIDDLEWARE in names else [*names, MIDDLEWARE]


def with_settings(additional_config: Mapping[str, Any] | None, ours: Mapping[str, Any]) -> dict[str, Any]:
    """The user's ``--additional-config`` with our settings, which may be given partly there.

    Groups of settings are joined, too.

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
    twice = sorted(_twice(settings, ours))
    if twice:
        names = ", ".join(twice)
        raise BadInputError(
            f'--additional-config: "{KEY}" gives {names}, and so do the options of this command. Give each '
            "setting once."
        )
    return {**theirs, KEY: _joined(settings, ours)}


def _twice(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    """The settings that both give, those of a group by their own names."""
    for name in theirs.keys() & ours.keys():
        if isinstance(theirs[name], Mapping) and isinstance(ours[name], Mapping):
            yield from (f"{name}.{inner}" for inner in _twice(theirs[name], ours[name]))
        else:
            yield name


def _joined(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    groups = {
        name: _joined(theirs[name], value)
        for name, value in ours.items()
        if isinstance(value, Mapping) and name in theirs
    }
    return {**theirs, **ours, **groups}
