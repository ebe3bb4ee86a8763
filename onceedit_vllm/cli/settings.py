"""From options to the frozen settings of a room."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from onceedit_vllm.config import Settings
from onceedit_vllm.errors import BadInputError

S = TypeVar("S", bound=Settings)


def build_settings(kind: type[S], options: Mapping[str, tuple[str, Any]]) -> S:
    """Make `kind` from ``{field: (option, value)}``.

    Raises:
        BadInputError: A value is out of its range; the message names the option the user typed.
    """
    try:
        return kind(**{field: value for field, (_, value) in options.items()})
    except ValidationError as error:
        problems = [
            f"{options[str(problem['loc'][0])][0]} {problem['input']}: {problem['msg']}."
            for problem in error.errors()
        ]
        raise BadInputError("\n".join(problems)) from error
