"""The built-in bank: common relations with their wordings, and names of things of each type."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from importlib import resources
from typing import NamedTuple

#: Relations whose wordings may mean the same; none is ever a counter-example of another.
_CLOSE = (
    {"location", "headquarters", "origin", "continent"},
    {"birthplace", "origin", "citizenship", "residence"},
    {"author", "composer", "painter", "film_director", "manufacturer", "inventor", "architect"},
    {"chief", "head_of_state", "mayor", "film_director"},
    {"founding_year", "opening", "birth_date"},
    {"native_language", "official_language", "citizenship"},
    {"employer", "team", "owner"},
    {"occupation", "field", "position", "instrument", "sport", "genre"},
    {"number", "population", "height", "length"},
    {"makes", "manufacturer"},
)

#: Things to say about a subject that no relation of the bank claims.
ABOUT = (
    "{} is known for", "Tell me about {}.", "What is {}?", "{} is famous because of", "The history of {}",
    "Why is {} important?", "My favourite thing about {} is", "{} is", "{} was", "I like {} because",
    "The name {} means", "A picture of {} shows", "In the news this week, {} has", "How old is {}?",
    "The price of {} is", "The most interesting fact about {} is", "{} is often compared with", "{} has",
    "Write a short text about {}.", "What do people think of {}?", "The word {} starts with the letter",
    "The age of {} is", "{} and", "Is {} real?", "Many people believe that {}",
)  # fmt: skip


#: Words in a name that tell its type.
_TELLTALE = {
    "person": r"dr\.|mr\.|mrs\.|ms\.|prof\.|professor|sir|saint|king|queen|prince|princess|captain",
    "building": r"tower|museum|bridge|castle|cathedral|church|palace|stadium|school|university|college",
    "company": r"inc\.?|corp\.?|ltd\.?|gmbh|company|robotics|systems|motors|airlines|bank|foods|media",
    "place": r"river|lake|mount|mountain|sea|ocean|valley|desert|island|bay|reef|forest",
    "city": r"city of|port|saint-",
}


class Relation(NamedTuple):
    """One relation of the bank. Wordings are frames, see :mod:`onceedit_vllm.editing.frames`."""

    name: str
    subject: str
    match: tuple[str, ...]
    wordings: tuple[str, ...]

    def is_close_to(self, other: Relation) -> bool:
        """Whether a wording of one might be read as the other."""
        return self.name == other.name or any({self.name, other.name} <= group for group in _CLOSE)


@cache
def relation_bank() -> tuple[Relation, ...]:
    """All built-in relations; the first that matches a frame is the frame's."""
    entries = json.loads(_read("relations.json"))
    return tuple(
        Relation(entry["name"], entry["subject"], tuple(entry["match"]), tuple(entry["wordings"]))
        for entry in entries
    )


@cache
def _names() -> dict[str, list[str]]:
    names: dict[str, list[str]] = json.loads(_read("names.json"))
    return names


def _read(name: str) -> str:
    return resources.files("onceedit_vllm.editing").joinpath(name).read_text(encoding="utf-8")


def find_relation(frame: str) -> Relation | None:
    """The relation whose words the frame uses."""
    lowered = frame.lower()
    for relation in relation_bank():
        if any(re.search(pattern, lowered) for pattern in relation.match):
            return relation
    return None


def subject_types() -> tuple[str, ...]:
    """The types that :func:`draw_name` knows."""
    return tuple(kind for kind in _names() if kind not in ("first", "last"))


def find_type(subject: str) -> str | None:
    """The type of a subject that is in the name lists, or that tells it by a word of its own."""
    plain = subject.lower().removeprefix("the ")
    for kind in subject_types():
        if any(plain == name.lower().removeprefix("the ") for name in _names()[kind]):
            return kind
    for kind, words in _TELLTALE.items():
        if re.search(rf"\b(?:{words})(?!\w)", plain):
            return kind
    return "person" if subject.split()[0] in _names()["first"] and " " in subject else None


def bank_names() -> list[str]:
    """Every name that :func:`draw_name` and :func:`draw_similar_name` take or build names from."""
    return [name for names in _names().values() for name in names]


def draw_name(kind: str | None, rng: random.Random) -> str:
    """A name of the given type, or of any type; half of the persons are made up."""
    names = _names()
    chosen = kind if kind in names else rng.choice(subject_types())
    if chosen == "person" and rng.random() < 0.5:
        return f"{rng.choice(names['first'])} {rng.choice(names['last'])}"
    return rng.choice(names[chosen or "thing"])


def draw_similar_name(subject: str, rng: random.Random) -> str | None:
    """A name that shares a word with the subject; None where it has only one."""
    words = subject.split()
    if len(words) < 2:
        return None
    place = rng.randrange(len(words))
    if words[place].lower() in ("the", "of", "de", "la", "and"):
        return None
    pool = _names()["first" if place == 0 else "last"]
    words[place] = rng.choice(pool)
    return " ".join(words)
