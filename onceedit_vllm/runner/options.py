"""What a single request may ask for, read from ``SamplingParams.extra_args``.

Two spellings of the same thing, because HTTP's ``vllm_xargs`` carries flat values only::

    extra_args={"onceedit": {"enabled": True, "alpha": 1.0}}
    extra_args={"onceedit": 1, "onceedit_alpha": 1.0}

`text` may be given beside `enabled` and `alpha`, as ``onceedit_text`` over HTTP.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from onceedit_vllm.config import RequestOverride, ServingConfig, Settings
from onceedit_vllm.errors import BadInputError

_USAGE = (
    'Use {"onceedit": false} to switch the edits off for this request, or {"onceedit": {"alpha": 0.0-1.0}} '
    '(over HTTP: "onceedit": 0, "onceedit_alpha": 0.0-1.0) to force the weight; {"text": "..."} '
    '("onceedit_text") says what is asked, where the prompt is more than that.'
)
#: The longest text of a request's own, in characters.
MAX_TEXT = 1000


class RequestOptions(Settings):
    """Per-request control.

    Attributes:
        enabled: False leaves the request to the LLM; the plug-in never sees it.
        alpha: Forces the ensemble weight and skips the gate; None asks the plug-in.
        text: Looked at and read by the plug-in instead of the prompt; None: the prompt.
    """

    # Not strict: over HTTP a switch arrives as 0 or 1, and "on" and "off" are understood too.
    enabled: bool = True
    alpha: Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)] | None = None
    text: Annotated[str, Field(strict=True, pattern=r"\S", max_length=MAX_TEXT)] | None = None


DEFAULT_OPTIONS = RequestOptions()
DEFAULT_OVERRIDE: RequestOverride = ServingConfig.model_fields["request_override"].default


def parse_request_options(extra_args: Mapping[str, Any] | None) -> RequestOptions:
    """Read the options of one request.

    Raises:
        BadInputError: An ``onceedit*`` key is unknown or given twice, or its value has the wrong type
            or range.
    """
    fields = _fields_of(extra_args) if extra_args else {}
    if not fields:
        return DEFAULT_OPTIONS
    try:
        return RequestOptions.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(f"{e['loc'][0]} = {reprlib.repr(e['input'])}: {e['msg']}" for e in error.errors())
        raise BadInputError(f"extra_args onceedit: {wrong}. {_USAGE}") from error


def _fields_of(extra_args: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of both spellings; other people's keys are none of ours."""
    main = extra_args.get("onceedit")
    fields: dict[str, Any] = {}
    if isinstance(main, Mapping):
        fields.update(main)
    elif main is not None:
        fields["enabled"] = main
    for key in map(str, extra_args):
        if key == "onceedit" or not key.startswith("onceedit"):
            continue
        field = key.removeprefix("onceedit_")
        if field == key:
            raise BadInputError(f"extra_args: unknown key {key!r}. {_USAGE}")
        if field in fields:
            raise BadInputError(f"extra_args: {key!r} says once more what 'onceedit' says. {_USAGE}")
        fields[field] = extra_args[key]
    return fields


def refuse_override(options: RequestOptions, allowed: RequestOverride) -> None:
    """Refuse what the engine's ``request_override`` does not let a request decide.

    Raises:
        BadInputError: Alpha is forced, or the text replaced, and only ``"all"`` lets a request do so; or
            the edits are switched off under ``"none"``.
    """
    if not options.enabled:
        if allowed == "none":
            raise BadInputError(_not_allowed("may switch the edits off", '"switch" or "all"'))
    elif options.alpha is not None and allowed != "all":
        raise BadInputError(_not_allowed("may force the weight (alpha)", '"all"'))
    elif options.text is not None and allowed != "all":
        raise BadInputError(_not_allowed("may say what is asked (text)", '"all"'))


def _not_allowed(what: str, needed: str) -> str:
    return (
        f"extra_args onceedit: no request to this engine {what}. Leave the option out, or start the engine "
        f'with additional_config={{"onceedit": {{..., "request_override": {needed}}}}}.'
    )
