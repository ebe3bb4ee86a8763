"""What a single request may ask for, read from ``SamplingParams.extra_args``.

Two spellings of the same thing, because HTTP's ``vllm_xargs`` carries flat values only::

    extra_args={"onceedit": {"enabled": True, "alpha": 1.0}}
    extra_args={"onceedit": 1, "onceedit_alpha": 1.0}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from onceedit_vllm.errors import BadInputError

_SWITCHES = {"on": True, "off": False, "true": True, "false": False, "1": True, "0": False}
_USAGE = (
    'Use {"onceedit": false} to switch the edits off for this request, or {"onceedit": {"alpha": 0.0-1.0}} '
    '(over HTTP: "onceedit": 0, "onceedit_alpha": 0.0-1.0) to force the weight.'
)


class RequestOptions(NamedTuple):
    """Per-request control.

    Attributes:
        enabled: False leaves the request to the LLM; the plug-in never sees it.
        alpha: Forces the ensemble weight and skips the gate; None asks the plug-in.
    """

    enabled: bool = True
    alpha: float | None = None


DEFAULT_OPTIONS = RequestOptions()


def parse_request_options(extra_args: Mapping[str, Any] | None) -> RequestOptions:
    """Read the options of one request.

    Raises:
        BadInputError: An ``onceedit*`` key is unknown, or its value has the wrong type or range.
    """
    if not extra_args:
        return DEFAULT_OPTIONS
    ours = {key: value for key, value in extra_args.items() if str(key).startswith("onceedit")}
    fields: dict[str, Any] = {}
    main = ours.pop("onceedit", None)
    if isinstance(main, Mapping):
        fields.update(main)
    elif main is not None:
        fields["enabled"] = main
    for key, value in ours.items():
        fields[_flat_field(str(key))] = value
    unknown = sorted(set(map(str, fields)) - {"enabled", "alpha"})
    if unknown:
        raise BadInputError(f"extra_args onceedit: unknown option {', '.join(map(repr, unknown))}. {_USAGE}")
    return RequestOptions(_parse_switch(fields.get("enabled", True)), _parse_alpha(fields.get("alpha")))


def _flat_field(key: str) -> str:
    if not key.startswith("onceedit_"):
        raise BadInputError(f"extra_args: unknown key {key!r}. {_USAGE}")
    return key.removeprefix("onceedit_")


def _parse_switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in _SWITCHES:
        return _SWITCHES[value.lower()]
    raise BadInputError(f"extra_args onceedit: {value!r} is neither on nor off. {_USAGE}")


def _parse_alpha(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInputError(f"extra_args onceedit alpha: {value!r} is not a number. {_USAGE}")
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise BadInputError(f"extra_args onceedit alpha: {value!r} is not between 0 and 1. {_USAGE}")
    return float(value)
