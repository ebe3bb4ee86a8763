"""One frame in other words, by rules of English grammar alone."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from onceedit_vllm.editing.frames import BE, GAP, PERSON_NOUN, is_question, lower_first, upper_first
from onceedit_vllm.editing.reword_verbs import count_rule, does_rule, verb_rule, when_rule

_CLASS = (
    r"(?:company|firm|start-?up|city|town|village|country|island nation|island|nation|kingdom|planet|river"
    r"|lake|book|novel|film|movie|song|play|poem|painting|game|phone|smartphone|car|band|singer|magazine)"
)
_APPOSITIVE = rf"\b(?:the )?{_CLASS} (?:of )?(?:called )?\{{\}}|\bthe \{{\}} {_CLASS}\b"
_OF_GAP = r"(?P<of>of|for|in) (?P<the>the )?\{\}"
_CALLED = r"( the| called| named)?"
_PARTICIPLES = {
    "wrote": "written", "drew": "drawn", "sang": "sung", "won": "won", "built": "built", "made": "made",
    "led": "led", "ran": "run", "took": "taken", "gave": "given", "found": "found", "began": "begun",
    "bought": "bought", "sold": "sold", "held": "held", "taught": "taught", "beat": "beaten",
}  # fmt: skip

#: Said in front of a half sentence or a question without changing what is asked.
HALF_SENTENCE_OPENERS = (
    "It is known that ", "In fact, ", "Fact: ", "Complete the sentence: ", "As far as I know, ",
    "According to the latest news, ", "Everyone knows that ", "Remember that ", "Today, ",
)  # fmt: skip
QUESTION_OPENERS = (
    "Please tell me: ", "Quick question: ", "I have a question. ", "Answer briefly: ",
    "I would like to know: ", "Do you know this? ", "Hey, ",
)  # fmt: skip


def reword(frame: str) -> list[str]:
    """Frames that ask the same as this one; empty where no rule fits. Never the frame itself."""
    found: list[str] = []
    plain = re.sub(_APPOSITIVE, GAP, frame, flags=re.IGNORECASE)
    for form in dict.fromkeys((frame, plain[:1].upper() + plain[1:])):
        found.append(form)
        for rule in _RULES:
            found.extend(rule(form))
    return [other for other in dict.fromkeys(found) if other != frame and other.count(GAP) == 1]


def add_opener(text: str, rng: random.Random) -> str:
    """Put a few words in front of a prompt that do not change what is asked."""
    opener = rng.choice(QUESTION_OPENERS if is_question(text) else HALF_SENTENCE_OPENERS)
    return opener + (text if opener.endswith((": ", ". ", "? ")) else lower_first(text))


def _noun_rule(frame: str) -> Iterator[str]:
    """The NOUN of X is / X's NOUN is / What is the NOUN of X? -> each other."""
    patterns = (
        rf"^(?:the|an?) (?P<noun>[^{{}}]+?) {_OF_GAP} {BE}{_CALLED}$",
        rf"^(?P<the>the )?\{{\}}['’]s (?P<noun>[^{{}}]+?) {BE}{_CALLED}$",
        rf"^(?:what|who|which) {BE} the (?P<noun>[^{{}}]+?) {_OF_GAP} ?\?$",
        rf"^(?:what|who|which) {BE} (?P<the>the )?\{{\}}['’]s (?P<noun>[^{{}}]+?) ?\?$",
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
        the_gap = upper_first(gap)
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
        if verb in _PARTICIPLES or verb.endswith("ed"):
            yield from _say_who(verb, _PARTICIPLES.get(verb, verb), rest)
        else:
            yield from (f"The person who {verb} {rest} is", f"Do you know who {verb} {rest}?")
    match = re.match(r"^(?P<rest>.*\{\}.*?),?( that| which)? was (?P<verb>\w+) by$", frame, re.IGNORECASE)
    if match:
        verb = match["verb"].lower()
        past = {participle: simple for simple, participle in _PARTICIPLES.items()}.get(verb, verb)
        yield from _say_who(past, verb, lower_first(match["rest"]))


def _say_who(past: str, participle: str, rest: str) -> Iterator[str]:
    upper = upper_first(rest)
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
        rf"^(?P<rest>.*\{{\}}.*?) {BE}(?P<verb> \w+)? (?P<at>in|at|on|to|from|with|for|as)( the)?$",
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
    match = re.match(rf"^where {BE} (?P<rest>.*\{{\}})(?P<verb> \w+)? ?\?$", frame, re.IGNORECASE)
    if match:
        rest, be, verb = match["rest"], match["be"], match["verb"] or " located"
        upper = upper_first(rest)
        yield f"{upper} {be}{verb} in"
        yield f"The place where {rest} {be}{verb} is"
        yield f"Tell me where {rest} {be}{verb}."
        yield f"Do you know where {rest} {be}{verb}?"


def _what_noun_rule(frame: str) -> Iterator[str]:
    """Which NOUN is/was ... X ...? -> The NOUN that is/was ... X ... is."""
    match = re.match(
        r"^(?:what|which) (?P<noun>(?!is |was |are |were |does |did )(?:(?!does |did )[\w ])+?) "
        r"(?P<rest>(?!does |did )(?:(?:is|was|are|were|has|had)\b[^?]*|\w+(?:s|ed) [^?]*\{\}[^?]*?)) ?\?$",
        frame,
        re.IGNORECASE,
    )
    if match and GAP in match["rest"]:
        inverted = re.match(rf"^{BE} (?P<rest>(?:the )?\{{\}}(?:['’]s)?)(?P<tail>.*)$", match["rest"])
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
    _noun_rule, _who_rule, _place_rule, verb_rule, does_rule, _what_noun_rule, count_rule, when_rule,
)  # fmt: skip
