"""What can be said of a subject without asking for the facts that edits are about: counter-examples.

`about.json` has half sentences and questions that ask for nothing known, of anything, of persons or things,
and of each relation of the bank some that are near it: they go on with what is around its answers, not with
one. The latter were written by a language model, for this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from onceedit_vllm.wordings.relations import Relation, find_relation, relation_bank


def about(kind: str | None) -> tuple[str, ...]:
    """What can be said of a subject of a type; anything of an unknown one."""
    known = _read()
    fitting = ("person", "thing") if kind is None else ("person",) if kind == "person" else ("thing",)
    return tuple(text for name in ("any", *fitting) for text in known[name])


def near(relation: Relation) -> tuple[str, ...]:
    """What is near a relation and does not ask for it."""
    return tuple(_read()["near"].get(relation.name, ()))


@cache
def near_others(relation: Relation | None, kind: str | None) -> tuple[str, ...]:
    """What is near other relations of a type of subject, and does not ask for this one."""
    others = (other for other in relation_bank() if other != relation and _fits(other, kind))
    texts = (text for other in others for text in near(other))
    return tuple(text for text in texts if not _asks_for(text, relation))


def all_about() -> Iterator[str]:
    """Every text."""
    known = _read()
    yield from (*known["any"], *known["person"], *known["thing"])
    for texts in known["near"].values():
        yield from texts


def _fits(relation: Relation, kind: str | None) -> bool:
    return kind in (None, "thing", relation.subject)


def _asks_for(text: str, relation: Relation | None) -> bool:
    found = find_relation(text)
    return found is not None and relation is not None and found.is_close_to(relation)


@cache
def _read() -> dict[str, Any]:
    file = resources.files("onceedit_vllm.wordings").joinpath("about.json")
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return known
