"""One frame in other words, by rules of English grammar alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from onceedit_vllm.editing.dress import lower_first
from onceedit_vllm.editing.fronted import reword_question
from onceedit_vllm.editing.verbs import INFINITIVES, PARTICIPLES
from onceedit_vllm.wordings.frames import GAP, PERSON_NOUN

#: With fewer rewordings by the rules here, a question is reworded by the general ones too.
_FEW = 4
_CLASS = (
    r"(?:company|firm|start-?up|city|town|village|country|island nation|island|nation|kingdom|planet|river"
    r"|lake|book|novel|film|movie|song|play|poem|painting|game|phone|smartphone|car|band|singer|magazine)"
)
_APPOSITIVE = rf"\b(?:the )?{_CLASS} (?:of )?(?:called )?\{{\}}|\bthe \{{\}} {_CLASS}\b"
_BE = r"(?P<be>is|was|are|were)"
_OF_GAP = r"(?P<of>of|for|in) (?P<the>the )?\{\}"
_CALLED = r"( the| called| named)?"


def reword(frame: str) -> list[str]:
    """Frames that ask the same as this one; empty where no rule fits. Never the frame itself."""
    found = _by_rules(frame)
    if len(found) < _FEW:
        found += reword_question(frame)
    return [other for other in dict.fromkeys(found) if other != frame and other.count(GAP) == 1]


def _by_rules(frame: str) -> list[str]:
    found: list[str] = []
    plain = re.sub(_APPOSITIVE, GAP, frame, flags=re.IGNORECASE)
    for form in dict.fromkeys((frame, plain[:1].upper() + plain[1:])):
        found.append(form)
        for rule in _RULES:
            found.extend(rule(form))
    return [other for other in dict.fromkeys(found) if other != frame]


def _upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _noun_rule(frame: str) -> Iterator[str]:
    """The NOUN of X is / X's NOUN is / What is the NOUN of X? -> each other."""
    patterns = (
        rf"^(?:the|an?) (?P<noun>[^{{}}]+?) {_OF_GAP} {_BE}{_CALLED}$",
        rf"^(?P<the>the )?\{{\}}['’]s (?P<noun>[^{{}}]+?) {_BE}{_CALLED}$",
        rf"^(?:what|who|which) {_BE} the (?P<noun>[^{{}}]+?) {_OF_GAP} ?\?$",
        rf"^(?:what|who|which) {_BE} (?P<the>the )?\{{\}}['’]s (?P<noun>[^{{}}]+?) ?\?$",
        rf"^(?:name|tell me|give me) the (?P<noun>[^{{}}]+?) {_OF_GAP} ?\.?$",
    )
    for pattern in patterns:
        match = re.match(pattern, frame, re.IGNORECASE)
        if match:
            parts = {"of": "of", "the": "", "be": "is"} | {k: v for k, v in match.groupdict().items() if v}
            yield from _say_noun(parts["noun"], parts["of"], parts["the"] + GAP, parts["be"])
            return


def _say_noun(noun: str, of: str, gap: str, be: str) -> Iterator[str]:
    ask = "Who" if PERSON_NOUN.search(noun) else "What"
    yield f"The {noun} {of} {gap} {be}"
    yield f"{ask} {be} the {noun} {of} {gap}?"
    yield f"Tell me the {noun} {of} {gap}."
    yield f"Do you know the {noun} {of} {gap}?"
    yield f"Name the {noun} {of} {gap}."
    yield f"Can you tell me {ask.lower()} the {noun} {of} {gap} {be}?"
    yield f"The {noun} {of} {gap}:"
    yield f"Asked about the {noun} {of} {gap}, the answer is"
    yield f"What is the name of the {noun} {of} {gap}?"
    if of != "in" and " of " not in noun:
        the_gap = _upper_first(gap)
        yield f"{the_gap}'s {noun} {be}"
        yield f"{ask} {be} {gap}'s {noun}?"
        yield f"The name of {gap}'s {noun} is"
        yield f"{the_gap} has as its {noun}"
        yield f"For {gap}, the {noun} {be}"
        yield f"When it comes to {gap}, the {noun} {be}"


def _who_rule(frame: str) -> Iterator[str]:
    """Who VERBED X? <-> X was VERBED by."""
    match = re.match(r"^who (?P<verb>\w+) (?P<rest>[^?]*\{\}[^?]*?) ?\?$", frame, re.IGNORECASE)
    if match and match["verb"].lower() not in ("is", "was", "are", "were", "does", "did", "do"):
        verb, rest = match["verb"].lower(), match["rest"]
        if verb in PARTICIPLES or verb.endswith("ed"):
            yield from _say_who(verb, PARTICIPLES.get(verb, verb), rest)
        else:
            yield from (f"The person who {verb} {rest} is", f"Do you know who {verb} {rest}?")
    match = re.match(r"^(?P<rest>.*\{\}.*?),?( that| which)? was (?P<verb>\w+) by$", frame, re.IGNORECASE)
    if match:
        verb = match["verb"].lower()
        past = {participle: simple for simple, participle in PARTICIPLES.items()}.get(verb, verb)
        yield from _say_who(past, verb, lower_first(match["rest"]))


def _say_who(past: str, participle: str, rest: str) -> Iterator[str]:
    upper = _upper_first(rest)
    yield f"{upper} was {participle} by"
    yield f"Who {past} {rest}?"
    yield f"By whom was {rest} {participle}?"
    yield f"Who was {rest} {participle} by?"
    yield f"The person who {past} {rest} is"
    yield f"Do you know who {past} {rest}?"
    yield f"Can you tell me who {past} {rest}?"
    yield f"The one who {past} {rest} was"
    yield f"It was {rest} that was {participle} by"


def _place_rule(frame: str) -> Iterator[str]:
    """X is VERBED in <-> Where is X VERBED?"""
    match = re.match(
        rf"^(?P<rest>.*\{{\}}.*?) {_BE}(?P<verb> \w+)? (?P<at>in|at|on|to|from|with|for|as)( the)?$",
        frame,
        re.IGNORECASE,
    )
    if match:
        rest, be, verb, at = lower_first(match["rest"]), match["be"], match["verb"] or "", match["at"]
        if at in ("in", "at", "on"):
            yield f"Where {be} {rest}{verb}?"
            yield f"Can you tell me where {rest} {be}{verb}?"
            yield f"The place where {rest} {be}{verb} is"
        yield f"What {be} {rest}{verb} {at}?"
        yield f"Do you know what {rest} {be}{verb} {at}?"
    match = re.match(rf"^where {_BE} (?P<rest>.*\{{\}})(?P<verb> \w+)? ?\?$", frame, re.IGNORECASE)
    if match:
        rest, be, verb = match["rest"], match["be"], match["verb"] or " located"
        upper = _upper_first(rest)
        yield f"{upper} {be}{verb} in"
        yield f"The place where {rest} {be}{verb} is"
        yield f"Tell me where {rest} {be}{verb}."
        yield f"Do you know where {rest} {be}{verb}?"


def _verb_rule(frame: str) -> Iterator[str]:
    """X VERBS (object or preposition) -> What does X VERB ...?"""
    match = re.match(
        r"^(?P<rest>(?:the )?(?:\w+ )?\{\}) (?P<verb>\w+?s)(?P<tail>( \w+){0,5})$", frame, re.IGNORECASE
    )
    if match and match["verb"] not in ("is", "was", "has", "does"):
        yield from _say_verb(lower_first(match["rest"]), "does", match["verb"], match["tail"])
    match = re.match(
        r"^(?P<rest>(?:the )?(?:\w+ )?\{\}) (?P<verb>\w+)(?P<tail>( [\w.]+){0,6})$", frame, re.IGNORECASE
    )
    if match and (match["verb"] in INFINITIVES or match["verb"].endswith("ed")):
        yield from _say_verb(lower_first(match["rest"]), "did", match["verb"], match["tail"])


def _say_verb(rest: str, helper: str, verb: str, tail: str) -> Iterator[str]:
    stem = _stem(verb)
    bare = re.sub(r" (the|an?)$", "", tail)
    upper = _upper_first(rest)
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
    if verb in INFINITIVES:
        return INFINITIVES[verb]
    if verb.endswith("ed"):
        return verb[:-1] if verb[-3] in "svczug" else verb[:-2]
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    return verb[:-2] if verb.endswith(("shes", "ches", "sses", "xes", "oes")) else verb[:-1]


def _count_rule(frame: str) -> Iterator[str]:
    """How many NOUNS does X have? <-> The number of NOUNS of X is, X has how many."""
    asked = r"^how many (?P<noun>[\w ]+?) (does|do|did) (?P<rest>.*\{\}) have ?\?$"
    stated = r"^the number of (?P<noun>[\w ]+?) (of|in|on) (?P<rest>(the )?\{\}) is$"
    match = re.match(asked, frame, re.IGNORECASE) or re.match(stated, frame, re.IGNORECASE)
    if match:
        noun, rest = match["noun"], match["rest"]
        upper = _upper_first(rest)
        yield f"How many {noun} does {rest} have?"
        yield f"The number of {noun} of {rest} is"
        yield f"The number of {noun} that {rest} has is"
        yield f"{upper}'s number of {noun} is"
        yield f"What is the number of {noun} of {rest}?"
        yield f"Counting the {noun} of {rest}, one gets"
        yield f"Can you tell me how many {noun} {rest} has?"
        yield f"Tell me how many {noun} {rest} has."
        yield f"Do you know how many {noun} {rest} has?"


def _when_rule(frame: str) -> Iterator[str]:
    """When was X VERBED? -> X was VERBED in, The year in which ..."""
    match = re.match(
        rf"^(when|in (what|which) year|(what|which) year) {_BE} (?P<rest>.*\{{\}}) (?P<verb>[\w ]+?) ?\?$",
        frame,
        re.IGNORECASE,
    )
    if match:
        rest, be, verb = match["rest"], match["be"], match["verb"]
        yield f"{_upper_first(rest)} {be} {verb} in"
        yield f"{_upper_first(rest)} {be} {verb} in the year"
        yield f"When {be} {rest} {verb}?"
        yield f"In what year {be} {rest} {verb}?"
        yield f"The year in which {rest} {be} {verb} is"
        yield f"Do you know when {rest} {be} {verb}?"
        yield f"Tell me when {rest} {be} {verb}."


def _does_rule(frame: str) -> Iterator[str]:
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
    upper = _upper_first(rest)
    tail = match["tail"].rstrip() or (f" {match['prep'].strip().lower()}" if match["prep"] else "")
    yield f"{upper} {verb}{tail}"
    ask = (match["ask"] + (match["noun"] or "")).lower()
    yield f"Do you know {ask} {rest} {verb}{tail}?"
    yield f"Can you tell me {ask} {rest} {verb}{tail}?"
    if match["noun"]:
        yield f"The{match['noun']} that {rest} {verb}{tail} is"


def _what_noun_rule(frame: str) -> Iterator[str]:
    """Which NOUN is/was ... X ...? -> The NOUN that is/was ... X ... is."""
    match = re.match(
        r"^(?:what|which) (?P<noun>(?!is |was |are |were |does |did )(?:(?!does |did )[\w ])+?) "
        r"(?P<rest>(?!does |did )(?:(?:is|was|are|were|has|had)\b[^?]*|\w+(?:s|ed) [^?]*\{\}[^?]*?)) ?\?$",
        frame,
        re.IGNORECASE,
    )
    if match and GAP in match["rest"]:
        inverted = re.match(rf"^{_BE} (?P<rest>(?:the )?\{{\}}(?:['’]s)?)(?P<tail>.*)$", match["rest"])
        noun = match["noun"]
        if inverted:
            said = f"{inverted['rest']} {inverted['be']}{inverted['tail']}".rstrip()
            yield f"Can you tell me which {noun} {said}?"
            yield f"{said[:1].upper() + said[1:]}"
        else:
            yield f"The {noun} that {match['rest']} is"
            yield f"Can you tell me which {noun} {match['rest']}?"
            yield f"Name the {noun} that {match['rest']}."


_RULES: tuple[Callable[[str], Iterator[str]], ...] = (
    _noun_rule, _who_rule, _place_rule, _verb_rule, _does_rule, _what_noun_rule, _count_rule, _when_rule,
)  # fmt: skip
