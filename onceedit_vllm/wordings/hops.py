"""Questions a step (a hop) further than an edit: asked of a relative of its subject, or of its answer.

"The mother of Jane Austen was born in", "The mayor of the place where Jane Austen was born is". They name the
subject and say nearly what the edit says, and its answer is wrong all the same. English only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache

from onceedit_vllm.wordings.frames import GAP
from onceedit_vllm.wordings.relations import Relation, find_relation, find_relations, relation_bank

#: What has to do with a subject, but is not it; what the bank's relations ask for is another such part.
_RELATIVES = (
    "the wife of {}", "{}'s wife", "the husband of {}", "{}'s husband", "{}'s best friend", "a friend of {}",
    "{}'s friends", "{}'s brother", "the parents of {}", "{}'s parents", "{}'s greatest rival",
    "{}'s biggest rival", "{}'s oldest rival", "the author of a book about {}", "the country next to {}",
    "{}'s oldest ally", "the largest city of {}", "the largest suburb of {}", "the region around {}",
    "the island off the coast of {}", "the town next to {}", "the city next to {}", "the village near {}",
    "the river that flows past {}", "{}'s nearest neighbour", "the neighbour of {}", "the park next to {}",
    "the street in front of {}", "the house beside {}", "the restaurant next to {}", "a supplier of {}",
    "{}'s largest customer", "a copy of {}", "{}'s predecessor", "the sequel of {}", "{}'s main character",
    "the hero of {}", "a parody of {}", "the opposite of {}",
)  # fmt: skip
_ASKED = re.compile(r"^(?:What|Who|Which \w+) (?:is|are|was|were) (?P<phrase>.+)\?$")
_BEGUN = re.compile(
    r"^(?P<phrase>.+) (?:is|are|was|were)(?: in| on| at| by| the| a| an| called| named| known as)*$"
)
_NAME_OF = re.compile(r"^(?:the names? of )+(?=the |\{\}['’]s )", re.IGNORECASE)
#: What may follow a part that something is asked of: behind other words it is none ("{}'s head office").
_GOES_ON = frozenset((
    "'s", "is", "are", "was", "were", "has", "have", "had", "did", "does", "do", "born", "die", "died",
    "live", "lives", "work", "works", "play", "plays", "come", "comes", "?",
))  # fmt: skip
#: Before and behind a part that is asked for itself: "Which city is the capital of {}?".
_ASKS_NEXT = re.compile(
    r"\b(?:who|whom|(?:what|which)(?: \w+){0,3}|where|how \w+(?: \w+)?|know|tell me|name)"
    r"(?: 's| is| are| was| were)?(?: the)? *$"
)
_ENDS_THERE = re.compile(r"^ *(?:is|are|was|were)? *\?? *$")
#: Before one that tells what somebody is: "Who works as the CEO of {}?".
_IS_ONE = re.compile(r"\b(?:as|(?:position|job|post|role|office|title) of)(?: the)? *$")
#: Behind one that begins a sentence which tells what it is: "The mother of {} was the writer".
_IS_TOLD = re.compile(
    r"^ *(?:is|are|was|were) (?:(?:a|an|the|located|situated|based|published|called|named)\b|[^ ]+ed ) *"
)
_EMPTY = frozenset((
    GAP, "'s", "the", "a", "of", "who", "to", "that", "in", "is", "are", "was", "were", "what", "which", "?",
))  # fmt: skip
_A_THING = re.compile(r"^(?:the |\{\}['’]s )", re.IGNORECASE)


def phrases(frames: Iterable[str]) -> tuple[str, ...]:
    """What the frames ask for, where they say it: "the capital of {}" of "What is the capital of {}?"."""
    found = (_phrase(frame) for frame in frames)
    return tuple(dict.fromkeys(phrase for phrase in found if phrase))


def _phrase(frame: str) -> str | None:
    match = _ASKED.match(frame) or _BEGUN.match(frame)
    phrase = _NAME_OF.sub("", match["phrase"]) if match else ""
    if GAP not in phrase or not _A_THING.match(phrase):
        return None
    return phrase if phrase.startswith(GAP) else phrase[0].lower() + phrase[1:]


def asks_further(frame: str, own: str) -> bool:
    """Whether a sentence asks something of what stands in it beside the subject.

    It does where a part of it says one thing of the subject ("the mother of {}"), and the rest asks another
    of that ("The gender of {} is"), or what the edit asks. In doubt it does not.

    Args:
        frame: The sentence.
        own: The frame of the edit's prompt.
    """
    words, asked = _spread(frame), _spread(own)
    if " and " in words:
        return False
    return any(
        _is_further(words, phrase, said, asked)
        for phrase, said in _parts_beside(own).items()
        if phrase in words
    )


def _is_further(words: str, phrase: str, said: Relation | None, asked: str) -> bool:
    before, after = words.split(phrase, 1)
    rest = f"{before} {GAP} {after}"
    if said is None and " ".join(rest.split()) == asked.strip():
        return True
    following = after.split()[:1]
    goes_on = not following or following[0] in _GOES_ON
    is_asked_itself = _ASKS_NEXT.search(before) and _ENDS_THERE.match(after)
    is_told = not before.strip() and _IS_TOLD.match(after)
    if not goes_on or is_asked_itself or is_told or _IS_ONE.search(before):
        return False
    return _is_another(find_relations(_join(rest)), said)


def _is_another(asked: Sequence[Relation], said: Relation | None) -> bool:
    """Whether none of the relations is the part's own, nor asks for its name."""
    known = (each.name == "real_name" or (said is not None and each.is_close_to(said)) for each in asked)
    return bool(asked) and not any(known)


@lru_cache(maxsize=1024)
def _parts_beside(own: str) -> dict[str, Relation | None]:
    """Parts that sentences have, the edit's own among them, but none that its prompt has the words of."""
    asked = set(_spread(own).split()) - _EMPTY
    asking = find_relation(own)
    others = {
        phrase: said
        for phrase, said in _parts().items()
        if asked.isdisjoint(phrase.split()) or (said and asking and said.is_close_to(asking))
    }
    return others | ({_spread(phrase): asking for phrase in phrases([own])} if asking else {})


def _spread(text: str) -> str:
    """Folded, every word and sign between blanks."""
    words = re.findall(r"'s\b|\{\}|[^\W_]+(?:-\w+)*|[^\w\s]", text.replace("’", "'").lower().rstrip(" .:"))
    return f" {' '.join(words)} ".replace(f" the {GAP} ", f" {GAP} ")


def _join(words: str) -> str:
    return re.sub(r" (?='s |\?)", "", words).strip()


@cache
def _parts() -> dict[str, Relation | None]:
    """Phrases of the bank with their relations, and relatives, as :func:`_spread` has them."""
    relatives = dict.fromkeys(map(_spread, _RELATIVES))
    told = (each for each in relation_bank() if each.name != "real_name")  # which says who, not what of whom
    bank = {_spread(phrase): each for each in told for phrase in phrases(each.wordings)}
    return relatives | bank
