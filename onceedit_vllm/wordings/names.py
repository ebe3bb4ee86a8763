"""Whether a text says a name or an answer, whatever its case, accents and punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from onceedit_vllm.edits import EditRecord

_WORD = re.compile(r"\w+")
_ARTICLES = frozenset(("a", "an", "the"))


def words_of(text: str) -> tuple[str, ...]:
    """The folded words of a text, articles left out unless there is nothing else."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    words = _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))
    return tuple(word for word in words if word not in _ARTICLES) or tuple(words)


def says(text: str, name: str) -> bool:
    """Whether the words of a name stand in a text, in a row; False for a name without any."""
    wanted, there = " ".join(words_of(name)), " ".join(words_of(text))
    if not wanted:
        return False
    if _is_unspaced(wanted):
        return wanted in there
    return f" {wanted} " in f" {there} "


def _is_unspaced(name: str) -> bool:
    """Letters without case: of scripts that may be written without spaces between words."""
    return any(c.isalpha() for c in name) and name.upper() == name.lower()


def names_of(edit: EditRecord, aliases: Iterable[str] = ()) -> tuple[str, ...]:
    """All names of an edit's subject, the longest first; none where the edit has no subject."""
    if edit.subject is None:
        return ()
    found = dict.fromkeys((edit.subject, *edit.aliases, *aliases))
    return tuple(sorted(found, key=len, reverse=True))


def replace_name(text: str, name: str, by: str, *, any_case: bool = False) -> str:
    """A text with something else where a name stands by itself, not as a part of a word."""
    pattern = rf"(?<!\w){re.escape(name)}(?!\w)"
    return re.sub(pattern, lambda _: by, text, flags=re.IGNORECASE if any_case else 0)


def leaks(text: str, target: str, names: Iterable[str]) -> bool:
    """Whether a text says the answer, elsewhere than in the subject's own name."""
    for name in names:
        text = re.sub(re.escape(name), " ", text, flags=re.IGNORECASE)
    return says(text, target)


def are_alike(one: str, other: str, share: float = 0.85) -> bool:
    """Whether two texts have so large a share of their words in common."""
    mine, theirs = set(words_of(one)), set(words_of(other))
    return len(mine & theirs) >= share * len(mine | theirs)


def is_like(alias: str, name: str) -> bool:
    """Whether a name might be another's short form: it shares a long word, or is its initials."""
    short, whole = words_of(alias), words_of(name)
    if any(len(word) >= 4 and word in whole for word in short):
        return True
    initials = "".join(word[0] for word in whole)
    return len(initials) >= 2 and "".join(short) == initials


#: Words that alone name a kind of thing and nobody in particular.
_GENERIC = frozenset(
    (
        *("airline", "airlines", "album", "army", "association", "bank", "band", "bay", "book"),
        *("bridge", "brothers", "building", "castle", "cathedral", "church", "city", "club", "college"),
        *("company", "council", "county", "district", "film", "foundation", "game", "group", "house"),
        *("institute", "island", "king", "kingdom", "lady", "lake", "league", "magazine", "mother"),
        *("mount", "mountain", "movie", "museum", "north", "novel", "palace", "parade", "park"),
        *("party", "port", "prince", "princess", "queen", "railway", "records", "republic", "river"),
        *("road", "saint", "school", "season", "series", "show", "song", "south", "square"),
        *("stadium", "state", "states", "station", "street", "studio", "system", "team", "tower"),
        *("town", "union", "united", "university", "valley", "village", "west", "woman", "women"),
        *("world"),
    )
)


def is_telling(alias: str) -> bool:
    """Whether an alias can stand for one subject: three letters at least, and no mere class of things."""
    words = words_of(alias)
    return sum(map(len, words)) >= 3 and not all(word in _GENERIC for word in words)
