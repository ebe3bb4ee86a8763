"""Rules of rewording for frames built on a verb: X VERBS, What does X VERB, How many has X, When was X."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onceedit_vllm.editing.frames import BE, lower_first, upper_first

_PAST = {
    "won": "win", "sank": "sink", "wrote": "write", "sang": "sing", "took": "take", "gave": "give",
    "ran": "run",
    "led": "lead", "built": "build", "made": "make", "found": "find", "began": "begin", "became": "become",
    "went": "go", "came": "come", "grew": "grow", "spoke": "speak", "taught": "teach", "fought": "fight",
    "met": "meet", "fell": "fall", "flew": "fly", "held": "hold", "sold": "sell", "bought": "buy",
    "spent": "spend",
}  # fmt: skip


def verb_rule(frame: str) -> Iterator[str]:
    """X VERBS (object or preposition) -> What does X VERB ...?"""
    match = re.match(
        r"^(?P<rest>(?:the )?(?:\w+ )?\{\}) (?P<verb>\w+?s)(?P<tail>( \w+){0,5})$", frame, re.IGNORECASE
    )
    if match and match["verb"] not in ("is", "was", "has", "does"):
        yield from _say_verb(lower_first(match["rest"]), "does", match["verb"], match["tail"])
    match = re.match(
        r"^(?P<rest>(?:the )?(?:\w+ )?\{\}) (?P<verb>\w+)(?P<tail>( [\w.]+){0,6})$", frame, re.IGNORECASE
    )
    if match and (match["verb"] in _PAST or match["verb"].endswith("ed")):
        yield from _say_verb(lower_first(match["rest"]), "did", match["verb"], match["tail"])


def _say_verb(rest: str, helper: str, verb: str, tail: str) -> Iterator[str]:
    stem = _stem(verb)
    bare = re.sub(r" (the|an?)$", "", tail)
    upper = upper_first(rest)
    year = re.fullmatch(r"(?P<middle>.*?) in (the year|year)", tail)
    if year:
        middle = year["middle"]
        yield f"When {helper} {rest} {stem}{middle}?"
        yield f"In what year {helper} {rest} {stem}{middle}?"
        yield f"In which year {helper} {rest} {stem}{middle}?"
        yield f"The year in which {rest} {verb}{middle} was"
        yield f"{upper} {verb}{middle} in"
        return
    noun = re.fullmatch(r"(?P<middle>.*) the (?P<noun>\w+)", tail)
    if noun:
        yield f"Which {noun['noun']} {helper} {rest} {stem}{noun['middle']}?"
        yield f"What {noun['noun']} {helper} {rest} {stem}{noun['middle']}?"
        yield f"The {noun['noun']} that {rest} {verb}{noun['middle']} is"
        yield f"Do you know which {noun['noun']} {rest} {verb}{noun['middle']}?"
        return
    yield f"What {helper} {rest} {stem}{bare}?"
    yield f"Do you know what {rest} {verb}{bare}?"
    yield f"Tell me what {rest} {verb}{bare}."
    yield f"What {rest} {verb}{bare} is"
    preposition = re.fullmatch(r"(?P<middle>.*) (?P<at>in|at|on|to|from|with|for|into|of)", bare)
    if preposition:
        middle, at = preposition["middle"], preposition["at"]
        yield f"{at.capitalize()} what {helper} {rest} {stem}{middle}?"
        yield f"{at.capitalize()} which one {helper} {rest} {stem}{middle}?"
        if at in ("in", "at", "on", "to"):
            yield f"Where {helper} {rest} {stem}{middle}?"
    if verb in ("lies", "stands", "sits"):
        yield f"{upper} is located{tail}"
        yield f"{upper} can be found{tail}"
        yield f"{upper} is{tail}"


def _stem(verb: str) -> str:
    if verb in _PAST:
        return _PAST[verb]
    if verb.endswith("ed"):
        return verb[:-1] if verb[-3] in "svczug" else verb[:-2]
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    return verb[:-2] if verb.endswith(("shes", "ches", "sses", "xes", "oes")) else verb[:-1]


def count_rule(frame: str) -> Iterator[str]:
    """How many NOUNS does X have? <-> The number of NOUNS of X is, X has how many."""
    asked = r"^how many (?P<noun>[\w ]+?) (does|do|did) (?P<rest>.*\{\}) have ?\?$"
    stated = r"^the number of (?P<noun>[\w ]+?) (of|in|on) (?P<rest>(the )?\{\}) is$"
    match = re.match(asked, frame, re.IGNORECASE) or re.match(stated, frame, re.IGNORECASE)
    if match:
        noun, rest = match["noun"], match["rest"]
        upper = upper_first(rest)
        yield f"How many {noun} does {rest} have?"
        yield f"The number of {noun} of {rest} is"
        yield f"The number of {noun} that {rest} has is"
        yield f"{upper}'s number of {noun} is"
        yield f"What is the number of {noun} of {rest}?"
        yield f"Counting the {noun} of {rest}, one gets"
        yield f"Can you tell me how many {noun} {rest} has?"
        yield f"Tell me how many {noun} {rest} has."
        yield f"Do you know how many {noun} {rest} has?"


def when_rule(frame: str) -> Iterator[str]:
    """When was X VERBED? -> X was VERBED in, The year in which ..."""
    match = re.match(
        rf"^(when|in (what|which) year|(what|which) year) {BE} (?P<rest>.*\{{\}}) (?P<verb>[\w ]+?) ?\?$",
        frame,
        re.IGNORECASE,
    )
    if match:
        rest, be, verb = match["rest"], match["be"], match["verb"]
        yield f"{upper_first(rest)} {be} {verb} in"
        yield f"{upper_first(rest)} {be} {verb} in the year"
        yield f"When {be} {rest} {verb}?"
        yield f"In what year {be} {rest} {verb}?"
        yield f"The year in which {rest} {be} {verb} is"
        yield f"Do you know when {rest} {be} {verb}?"
        yield f"Tell me when {rest} {be} {verb}."


def does_rule(frame: str) -> Iterator[str]:
    """What/Which NOUN does X VERB ...? -> X VERBS ..., The NOUN X VERBS is."""
    match = re.match(
        r"^(?P<prep>\w+ )?(?P<ask>what|which|where|who)(?P<noun> [\w ]+?)? does "
        r"(?P<rest>.*\{\}) (?P<verb>\w+)(?P<tail>[\w ]*) ?\?$",
        frame,
        re.IGNORECASE,
    )
    if not match:
        return
    ending = "es" if match["verb"].endswith(("sh", "ch", "s", "x", "o")) else "s"
    rest, verb = match["rest"], match["verb"] + ending
    upper = upper_first(rest)
    tail = match["tail"].rstrip() or (f" {match['prep'].strip().lower()}" if match["prep"] else "")
    yield f"{upper} {verb}{tail}"
    ask = (match["ask"] + (match["noun"] or "")).lower()
    yield f"Do you know {ask} {rest} {verb}{tail}?"
    yield f"Can you tell me {ask} {rest} {verb}{tail}?"
    if match["noun"]:
        yield f"The{match['noun']} that {rest} {verb}{tail} is"
