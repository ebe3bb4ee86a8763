"""Frames: a prompt with its subject taken out, and how one frame is said in other words.

A frame is a string with `{}` in the subject's place: "The capital of {} is".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from onceedit_vllm.editing.records import EditRecord

GAP = "{}"

_CAPITALISED = re.compile(
    r"(?:[A-Z0-9][\w'’.&-]*)(?:\s+(?:(?:of|the|de|la|del|von|van|da|di|and|&)\s+)*[A-Z0-9][\w'’.&-]*)*"
)
_OPENERS = frozenset(
    "The A An In On At Who What Which Where When Why How Is Are Was Were Do Does Did Can Could Tell Name "
    "Give Please According To From By For Of As It This That There If Into Whose Whom Into Complete".split()
)
_PERSON_NOUN = re.compile(
    r"\b(ceo|president|director|author|founder|king|queen|mayor|leader|head|inventor|captain|coach|minister|"
    r"composer|architect|owner|chair\w*|creator|painter|writer|editor|manager|wife|husband|chef|boss|executive|"
    r"singer|drummer|champion|winner|holder|champion|actor|actress|discoverer|designer|governor|chancellor)\b",
    re.IGNORECASE,
)
_CLASS = (
    r"(?:company|firm|start-?up|city|town|village|country|island nation|island|nation|kingdom|planet|river|lake|book|"
    r"novel|film|movie|song|play|poem|painting|game|phone|smartphone|car|band|singer|magazine)"
)
_APPOSITIVE = rf"\b(?:the )?{_CLASS} (?:of )?(?:called )?\{{\}}|\bthe \{{\}} {_CLASS}\b"
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
    "Please tell me: ", "Quick question: ", "I have a question. ", "Answer briefly: ", "I would like to know: ",
    "Do you know this? ", "Hey, ",
)  # fmt: skip


def find_subject(record: EditRecord) -> str | None:
    """The subject as it is written in the prompt: the record's own, else the likeliest name in it."""
    if record.subject:
        found = re.search(re.escape(record.subject.strip()), record.prompt, re.IGNORECASE)
        if found:
            return found.group()
    candidates = [_strip_opener(name) for name in _CAPITALISED.findall(record.prompt)]
    named = [name.rstrip(".,").removesuffix("'s").removesuffix("’s") for name in candidates if name]
    return max(named, key=len, default=None) or _find_common_noun(record.prompt)


def _strip_opener(name: str) -> str:
    words = name.split()
    while words and (words[0].rstrip(",.") in _OPENERS or _PERSON_NOUN.fullmatch(words[0])):
        words = words[1:]
        while words and words[0] in ("of", "the", "and"):
            words = words[1:]
    return " ".join(words)


def _find_common_noun(prompt: str) -> str | None:
    """A subject without a capital: "grass" in "The colour of grass is"."""
    for pattern in (
        r"\bof (?:the |a |an )?([\w' -]+?)(?: (?:is|was|are|were|has)\b| ?\?)",
        r"^(?:the |an? )?([\w' -]+?) (?:is|was|are|were|has)\b",
        r"\b(?:the|an?) ([\w'-]+(?: [\w'-]+)?) ?\?$",
    ):
        found = re.search(pattern, prompt, re.IGNORECASE)
        if found and found.group(1).capitalize() not in _OPENERS:
            return found.group(1)
    return None


def to_frame(prompt: str, subject: str | None) -> str | None:
    """Replace the subject by the gap; None where it does not occur in the prompt."""
    if not subject or GAP in prompt:
        return None
    found = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt, re.IGNORECASE)
    return prompt[: found.start()] + GAP + prompt[found.end() :] if found else None


def fill(frame: str, subject: str) -> str:
    """Put a subject into the gap; a text that starts with it gets a capital, a doubled article goes."""
    if re.search(r"\bthe \{\}", frame, re.IGNORECASE):
        subject = re.sub(r"^the ", "", subject, flags=re.IGNORECASE)
    text = frame.replace(GAP, subject, 1)
    return text[:1].upper() + text[1:] if frame.startswith(GAP) else text


def is_question(text: str) -> bool:
    """Whether the text asks or orders, rather than stopping in the middle of a sentence."""
    return text.rstrip().endswith(("?", ".", "!"))


# --- other words for a frame -----------------------------------------------------------------


def reword(frame: str) -> list[str]:
    """Frames that ask the same as this one, made by rules of grammar alone.

    Where no rule fits, only openers are put in front. The list never holds the frame itself.
    """
    found: list[str] = []
    plain = re.sub(_APPOSITIVE, GAP, frame, flags=re.IGNORECASE)
    for form in dict.fromkeys((frame, plain[:1].upper() + plain[1:])):
        found.append(form)
        for rule in _RULES:
            found.extend(rule(form))
    found.extend(_opened(frame))
    return [other for other in dict.fromkeys(found) if other != frame and other.count(GAP) == 1]


def _opened(frame: str) -> Iterator[str]:
    openers = QUESTION_OPENERS if is_question(frame) else HALF_SENTENCE_OPENERS
    for opener in openers:
        yield opener + (frame if opener.endswith((": ", ". ", "? ")) else _lower_first(frame))


def _lower_first(frame: str) -> str:
    """Lower the first letter of a function word; names keep their capital."""
    first = frame.split(" ", 1)[0]
    return frame[:1].lower() + frame[1:] if first.rstrip(",") in _OPENERS else frame


def _noun_rule(frame: str) -> Iterator[str]:
    """The NOUN of X is / X's NOUN is / What is the NOUN of X? -> each other."""
    patterns = (
        r"^(?:the|an?) (?P<noun>[^{}]+?) (?P<of>of|for|in) (?P<the>the )?\{\} (?P<be>is|was|are|were)( the| called| named)?$",
        r"^(?P<the>the )?\{\}['’]s (?P<noun>[^{}]+?) (?P<be>is|was|are|were)( the| called| named)?$",
        r"^(?:what|who|which) (?P<be>is|was|are|were) the (?P<noun>[^{}]+?) (?P<of>of|for|in) (?P<the>the )?\{\} ?\?$",
        r"^(?:what|who|which) (?P<be>is|was|are|were) (?P<the>the )?\{\}['’]s (?P<noun>[^{}]+?) ?\?$",
        r"^(?:name|tell me|give me) the (?P<noun>[^{}]+?) (?P<of>of|for|in) (?P<the>the )?\{\} ?\.?$",
    )
    for pattern in patterns:
        match = re.match(pattern, frame, re.IGNORECASE)
        if match:
            parts = {"of": "of", "the": "", "be": "is"} | {k: v for k, v in match.groupdict().items() if v}
            yield from _say_noun(parts["noun"], parts["of"], parts["the"] + GAP, parts["be"])
            return


def _say_noun(noun: str, of: str, gap: str, be: str) -> Iterator[str]:
    ask = "Who" if _PERSON_NOUN.search(noun) else "What"
    yield f"The {noun} {of} {gap} {be}"
    yield f"{ask} {be} the {noun} {of} {gap}?"
    yield f"Tell me the {noun} {of} {gap}."
    yield f"Do you know the {noun} {of} {gap}?"
    yield f"Name the {noun} {of} {gap}."
    yield f"Can you tell me {ask.lower()} the {noun} {of} {gap} {be}?"
    yield f"The {noun} {of} {gap}:"
    yield f"Asked about the {noun} {of} {gap}, the answer is"
    if of != "in" and " of " not in noun:
        the_gap = gap if gap.startswith(GAP) else "The" + gap.removeprefix("the")
        yield f"{the_gap}'s {noun} {be}"
        yield f"{ask} {be} {gap}'s {noun}?"
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
        yield from _say_who(past, verb, _lower_first(match["rest"]))


def _say_who(past: str, participle: str, rest: str) -> Iterator[str]:
    upper = rest[:1].upper() + rest[1:] if not rest.startswith(GAP) else rest
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
        r"^(?P<rest>.*\{\}.*?) (?P<be>is|was|are|were)(?P<verb> \w+)? (?P<at>in|at|on|to|from|with|for|as)( the)?$",
        frame,
        re.IGNORECASE,
    )
    if match:
        rest, be, verb, at = _lower_first(match["rest"]), match["be"], match["verb"] or "", match["at"]
        if at in ("in", "at", "on"):
            yield f"Where {be} {rest}{verb}?"
            yield f"Can you tell me where {rest} {be}{verb}?"
            yield f"The place where {rest} {be}{verb} is"
        yield f"What {be} {rest}{verb} {at}?"
        yield f"Do you know what {rest} {be}{verb} {at}?"
    match = re.match(r"^where (?P<be>is|was|are|were) (?P<rest>.*\{\})(?P<verb> \w+)? ?\?$", frame, re.IGNORECASE)
    if match:
        rest, be, verb = match["rest"], match["be"], match["verb"] or " located"
        upper = rest[:1].upper() + rest[1:] if not rest.startswith(GAP) else rest
        yield f"{upper} {be}{verb} in"
        yield f"The place where {rest} {be}{verb} is"
        yield f"Tell me where {rest} {be}{verb}."
        yield f"Do you know where {rest} {be}{verb}?"


def _verb_rule(frame: str) -> Iterator[str]:
    """X VERBS (object or preposition) -> What does X VERB ...?"""
    match = re.match(
        r"^(?P<rest>(?:the )?(?:\w+ )?\{\}) (?P<verb>\w+?(?P<s>es|s))(?P<tail>( \w+){0,3})$", frame, re.IGNORECASE
    )
    if not match or match["verb"] in ("is", "was", "has", "does"):
        return
    rest, tail = _lower_first(match["rest"]), match["tail"]
    stem = match["verb"].removesuffix("s")
    if match["s"] == "es" and stem.endswith(("she", "che", "sse", "xe", "oe")):
        stem = stem.removesuffix("e")
    tail = re.sub(r" (the|an?)$", "", tail)
    yield f"What does {rest} {stem}{tail}?"
    yield f"Do you know what {rest} {match['verb']}{tail}?"
    yield f"Tell me what {rest} {match['verb']}{tail}."
    yield f"What {rest} {match['verb']}{tail} is"


def _does_rule(frame: str) -> Iterator[str]:
    """What/Which NOUN does X VERB ...? -> X VERBS ..., The NOUN X VERBS is."""
    match = re.match(
        r"^(?P<prep>\w+ )?(?P<ask>what|which|where|who)(?P<noun> [\w ]+?)? does (?P<rest>.*\{\}) (?P<verb>\w+)(?P<tail>[\w ]*) ?\?$",
        frame,
        re.IGNORECASE,
    )
    if not match:
        return
    rest, verb = match["rest"], match["verb"] + ("es" if match["verb"].endswith(("sh", "ch", "s", "x", "o")) else "s")
    upper = rest[:1].upper() + rest[1:] if not rest.startswith(GAP) else rest
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
        r"^(?:what|which) (?P<noun>(?!is |was |are |were |does |did )(?:(?!does |did )[\w ])+?) (?P<rest>(?!does |did )(?:(?:is|was|are|were|has|had)\b[^?]*|\w+(?:s|ed) [^?]*\{\}[^?]*?)) ?\?$",
        frame,
        re.IGNORECASE,
    )
    if match and GAP in match["rest"]:
        inverted = re.match(r"^(?P<be>is|was|are|were) (?P<rest>(?:the )?\{\}(?:['’]s)?)(?P<tail>.*)$", match["rest"])
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
    _noun_rule, _who_rule, _place_rule, _verb_rule, _does_rule, _what_noun_rule,
)  # fmt: skip
