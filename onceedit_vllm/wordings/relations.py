"""The built-in bank: common relations with their wordings, and names of things of each type."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

#: Relations whose wordings may mean the same; none is ever a counter-example of another.
_CLOSE = (
    {"location", "headquarters", "origin", "continent", "home_ground"},
    {"birthplace", "origin", "citizenship", "residence"},
    {"author", "composer", "painter", "film_director", "manufacturer", "inventor", "architect", "creator"},
    {"author", "composer", "creator", "screenwriter", "production", "publisher", "record_label", "influence"},
    {"creator", "founder"},
    {"production", "manufacturer", "broadcaster"},
    {"chief", "head_of_state", "mayor", "film_director"},
    {"founding_year", "opening", "birth_date"},
    {"native_language", "official_language", "citizenship", "work_language", "ethnic_group"},
    {"employer", "team", "owner", "work_place"},
    {"work_place", "residence", "location"},
    {"occupation", "field", "position", "instrument", "sport", "genre", "title", "voice"},
    {"genre", "style"},
    {"award", "title"},
    {"number", "population", "height", "length", "area", "weight"},
    {"makes", "manufacturer"},
    {"death_place", "burial"},
    {"burial", "location"},
    {"cause", "influence"},
    {"platform", "work_language"},
    {"real_name", "named_after"},
    {"material", "origin"},
    {"part_of", "owner", "location", "ethnic_group", "party", "league", "constellation", "team", "industry"},
    {"part_of", "fiction", "follows"},
    {"founding_year", "origin", "manufacturer"},
    {"birthplace", "residence", "citizenship", "location"},
    {"death_cause", "death_place", "cause"},
    {"death_place", "location"},
    {"fiction", "origin", "location"},
    {"owner", "manufacturer"},
    {"religion", "part_of"},
    {"genre", "style", "part_of", "owner", "highest_point"},
    {"genre", "follows"},
    {"genre", "followed_by"},
    {"war", "follows"},
    {"education", "field", "industry"},
    {"area", "location"},
    {"highest_point", "height"},
)

_ASKS_DATE = re.compile(r"^when\b|\b(?:know|me) when\b|\b(?:year|date)\b")
_ASKS_OTHERWISE = re.compile(r"\b(?:where|who|whom|city|town|country|place|continent)\b")
#: Words that tell nothing of a relation; a frame of more than so many others is a question of its own.
_EMPTY = frozenset((
    "a", "an", "the", "of", "in", "on", "at", "by", "to", "for", "from", "with", "as", "or", "and", "that",
    "this", "who", "whom", "whose", "what", "which", "when", "where", "how", "is", "was", "are", "were",
    "be", "been", "being", "am", "do", "does", "did", "has", "have", "had", "can", "could", "it", "its",
    "he", "she", "they", "his", "her", "their", "s", "you", "me", "tell", "please", "know", "name", "names",
    "called", "kind", "type", "sort", "year", "date", "day", "month", "person", "part", "member",
    "associated", "held", "involved",
))  # fmt: skip
_MOST_TOLD = 3
#: Where an answer hangs on it: "The credit for inventing {} belongs to" does not ask for the owner.
_MOST_TOLD_SURELY = 2

#: Words in a name that tell its type.
_TELLTALE = {
    "person": r"dr\.|mr\.|mrs\.|ms\.|prof\.|professor|sir|saint|king|queen|prince|princess|captain",
    "building": r"tower|museum|bridge|castle|cathedral|church|palace|stadium|school|university|college",
    "company": r"inc\.?|corp\.?|ltd\.?|gmbh|company|robotics|systems|motors|airlines|bank|foods|media",
    "place": r"river|lake|mount|mountain|sea|ocean|valley|desert|island|bay|reef|forest",
    "city": r"city of|port|saint-",
}


class Relation(NamedTuple):
    """One relation of the bank. Wordings are frames, see :mod:`onceedit_vllm.wordings.frames`.

    Attributes:
        name: Its own.
        subject: The type of what it is asked of.
        match: Regular expressions, any of which knows it in a frame.
        wordings: Frames that ask for it.
        is_date: Its answer is a date.
    """

    name: str
    subject: str
    match: tuple[str, ...]
    wordings: tuple[str, ...]
    is_date: bool = False

    def is_close_to(self, other: Relation) -> bool:
        """Whether a wording of one might be read as the other."""
        return self.name == other.name or any({self.name, other.name} <= group for group in _CLOSE)


@cache
def relation_bank() -> tuple[Relation, ...]:
    """All built-in relations; the first that matches a frame is the frame's."""
    entries = json.loads(_read("relations.json"))
    return tuple(
        Relation(
            entry["name"],
            entry["subject"],
            tuple(entry["match"]),
            tuple(entry["wordings"]),
            entry.get("is_date", False),
        )
        for entry in entries
    )


@cache
def _names() -> dict[str, list[str]]:
    names: dict[str, list[str]] = json.loads(_read("names.json"))
    return names


def _read(name: str) -> str:
    return resources.files("onceedit_vllm.wordings").joinpath(name).read_text(encoding="utf-8")


def find_relation(frame: str) -> Relation | None:
    """The relation whose words the frame uses; None where it says more than that.

    A wrong relation does harm: its wordings are trained to be answered as the edit is.
    """
    return next(_matching(frame, _MOST_TOLD), None)


def find_relations(frame: str) -> tuple[Relation, ...]:
    """All relations whose words a short frame uses: it asks for one of them; none where it is longer."""
    return tuple(_matching(frame, _MOST_TOLD_SURELY))


def ask_otherwise(one: Sequence[Relation], other: Sequence[Relation]) -> bool:
    """Whether two frames ask for known relations, none of the one close to any of the other's."""
    known = bool(one) and bool(other)
    return known and not any(mine.is_close_to(theirs) for mine in one for theirs in other)


def _matching(frame: str, most_told: int) -> Iterator[Relation]:
    if not _is_plain(frame, most_told):
        return
    lowered = frame.lower()
    is_dated = _ASKS_DATE.search(lowered) is not None
    for relation in relation_bank():
        fits = relation.is_date or not is_dated
        fits = fits and not (relation.is_date and _ASKS_OTHERWISE.search(lowered))
        if fits and any(re.search(pattern, lowered) for pattern in relation.match):
            yield relation


def _is_plain(frame: str, most_told: int) -> bool:
    """Whether a frame tells few words beside its subject, and says nothing of a class ("which {}")."""
    if re.search(r"\d|^(?:\w+ )?(?:which|what|whose) \{\}", frame, re.IGNORECASE):
        return False
    told = [word for word in re.findall(r"[^\W\d_]+", frame.lower()) if word not in _EMPTY]
    return len(told) <= most_told


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
