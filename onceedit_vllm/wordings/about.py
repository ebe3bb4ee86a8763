"""What can be said of a subject that asks for hardly any relation of the bank: counter-examples.

Half sentences and questions of anything, of persons and of things, in `about.json`.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources


def about(kind: str | None) -> tuple[str, ...]:
    """What can be said of a subject of a type; anything of an unknown one."""
    fitting = ("person", "thing") if kind is None else ("person",) if kind == "person" else ("thing",)
    return tuple(text for name in ("any", *fitting) for text in _read()[name])


@cache
def _read() -> dict[str, list[str]]:
    file = resources.files("onceedit_vllm.wordings").joinpath("about.json")
    known: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8"))
    return known
