"""English given names and their short forms: James is Jim, and Jim is Jimmy."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from importlib import resources
from typing import Any

#: Short forms of each full name, and those of them that are full names as often: Jack is mostly no John.
#: Public lists hold more, and many pairs of two names among them (Mary for Maureen, Erin for Aaron), by which
#: another person would be meant.
_FILE = "given_names.json"


def other_given_names(name: str) -> frozenset[str]:
    """What else whoever is called so may be called.

    The full names of a short one, the short ones of a full one, and short ones of the same full name of
    which one is the beginning of the other.

    Args:
        name: In small letters, without accents.
    """
    return _others().get(name, frozenset())


def is_given_name(name: str) -> bool:
    """Whether it is in the list, whole or short; in small letters, without accents."""
    return name in _others()


def is_full_given_name(name: str) -> bool:
    """Whether it is in the list and no short form; in small letters, without accents."""
    return name in _read()["short"]


@cache
def _read() -> dict[str, Any]:
    text = resources.files("onceedit_vllm.wordings").joinpath(_FILE).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def _others() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    of_their_own = frozenset(_read()["names_of_their_own"])
    for full, short in _read()["short"].items():
        found[full].update(short)
        for one in short:
            alike = (two for two in short if two != one and (two.startswith(one) or one.startswith(two)))
            found[one].update(() if one in of_their_own else (full, *alike))
    return {name: frozenset(others) for name, others in found.items()}
