"""Any English question in other words, by where its question word stands and what stands behind it.

Less is known here than by the rules of :mod:`onceedit_vllm.editing.reword`, so what comes out may be stiff:
it is for questions that none of those fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from onceedit_vllm.editing.dress import lower_first
from onceedit_vllm.editing.verbs import INFINITIVES, UNCHANGING
from onceedit_vllm.wordings.frames import PERSON_NOUN

_PASTS = {infinitive: past for past, infinitive in INFINITIVES.items()}
_AT = r"in|on|at|by|to|from|for|of|with|as|under|into|after|during"
_AUX = r"is|was|are|were|did|does|do|has|have|had|can|could|will|would"
#: A question word, with its preposition before it and its noun behind it.
_ASKED = (
    rf"(?:(?P<at>{_AT}) )?(?P<wh>what|which|who|whom|whose|where|when|how many|how much|how)"
    rf"(?P<noun>(?: (?!(?:{_AUX})\b)[\w,'’/-]+)*?)"
)
_PRONOUN = r"you|i|we|they|he|she|it|there|if"
#: The subject behind the verb: the gap, what belongs to it before, and an apposition behind.
_NAMED = (
    rf"(?P<named>(?:(?!(?:{_AUX}|{_PRONOUN})\b)[\w'’-]+ ){{0,5}}?[\"“]?\{{\}}[\"”]?(?:['’]s)?(?:,[^,?]+,)?)"
)
_FRONTED = re.compile(rf"^{_ASKED} (?P<aux>{_AUX}) {_NAMED}(?P<rest>[^?]+?) ?\?*$", re.IGNORECASE)
#: What comes out where the answer is what a noun belongs to: "the winner of X".
_NOUN = re.compile(
    rf"^(?:who|what|which) (?P<be>is|was|are|were) (?P<said>(?:the|an?) [^{{}}]+ (?:{_AT}|about|that|who) "
    r"(?:the )?[\"“]?\{\}[^?]*?) ?\?*$",
    re.IGNORECASE,
)
_SUBJECT = re.compile(rf"^{_ASKED} (?P<rest>[^?]*\{{\}}[^?]*?) ?\?*$", re.IGNORECASE)
_LAST = re.compile(rf"^(?P<said>.*\{{\}}.*?),? {_ASKED} ?\?*$", re.IGNORECASE)
_DATES = re.compile(
    r"\b(?:on |in )?(?:what|which) (?:(?:day|month|year)(?:,? and |, )){1,2}(?:day|month|year)\b",
    re.IGNORECASE,
)
_BEING = r"(?:is|was|are|were|has|had|\w+ed)\b"
_THINGS = {"who": "person", "whom": "person", "where": "place", "when": "date"}
_VERB = re.compile(
    r"^ ?(?P<adverb>(?:\w+ly|first|last|originally|also|ever|formally) )?(?P<verb>\w+)(?P<tail>.*)$"
)


def reword_question(frame: str) -> Iterator[str]:
    """Frames that ask the same as a question, or as a sentence that ends in one; none where it is neither."""
    dated = _DATES.sub("on what date", frame)
    if dated != frame:
        yield from _both(frame, dated)
        frame = dated[:1].upper() + dated[1:]
    for pattern, say in _RULES:
        match = pattern.match(frame)
        if match:
            yield from say(match)
            return


def _both(frame: str, dated: str) -> Iterator[str]:
    yield dated[:1].upper() + dated[1:]
    yield re.sub(r"^on what date", "When", dated)


def _say_fronted(match: re.Match[str]) -> Iterator[str]:
    """Which NOUN did X VERB ...? -> ... which NOUN X VERBED ..., The NOUN that X VERBED ... is."""
    aux, rest = match["aux"].lower(), match["rest"]
    if aux in ("did", "does") and re.match(rf" (?:{_AT})\b", rest):
        return  # the subject goes on
    said = f"{match['named']} {_conjugate(aux, rest)}"
    upper = said[:1].upper() + said[1:]
    noun, at, wh = match["noun"].strip(), (match["at"] or "").lower(), match["wh"].lower()
    asked = " ".join(part for part in (at, wh, noun) if part)
    yield from _ask_after(f"{asked} {said}")
    if wh.startswith("how"):
        if noun:
            yield f"The number of {noun} that {said} is"
        return
    if at or wh in ("where", "when"):
        yield f"{upper} {at or 'in'}"
    yield f"{upper} {asked}?"
    thing = noun or _THINGS.get(wh)
    if thing is None:
        yield f"{asked[:1].upper() + asked[1:]} {said} is"
        return
    relative = f"{at} which" if at else {"where": "where", "when": "when"}.get(wh, "that")
    yield f"The {thing} {relative} {said} is"
    yield f"Name the {thing} {relative} {said}."


def _say_noun(match: re.Match[str]) -> Iterator[str]:
    """Who was the NOUN of X ...? -> The NOUN of X ... was."""
    said, be = match["said"], match["be"].lower()
    who = "who" if PERSON_NOUN.search(said) else "what"
    yield f"{said[:1].upper() + said[1:]} {be}"
    yield from (f"{order} {said}." for order in ("Tell me", "Name", "I would like to know"))
    yield from (f"{order} {who} {said} {be}?" for order in ("Do you know", "Can you tell me"))


def _say_subject(match: re.Match[str]) -> Iterator[str]:
    """Which NOUN VERBS ... X ...? -> The NOUN that VERBS ... X ... is."""
    noun, wh, rest = match["noun"].strip(), match["wh"].lower(), match["rest"]
    if match["at"] or wh.startswith(("how", "where", "when")):
        return
    yield from _ask_after(" ".join(part for part in (wh, noun, rest) if part))
    if wh == "who" or (noun and re.match(_BEING, rest)):
        thing = noun or "person"
        yield f"The {thing} {'who' if wh == 'who' else 'that'} {rest} is"
        yield f"Name the {thing} {'who' if wh == 'who' else 'that'} {rest}."


def _say_last(match: re.Match[str]) -> Iterator[str]:
    """X is ... for which NOUN? -> X is ... for, For which NOUN is X ...?"""
    said, at = match["said"].rstrip(" ,"), match["at"] or ""
    yield f"{said} {at}".rstrip()
    verb = re.match(
        r"^(?P<named>(?:the |an? )?\{\}) (?P<aux>is|was|are|were|has|can)(?P<rest>.*)$", said, re.I
    )
    asked = " ".join(part for part in (at.lower(), match["wh"].lower(), match["noun"].strip()) if part)
    if verb:
        named = lower_first(verb["named"])
        yield f"{asked[:1].upper() + asked[1:]} {verb['aux']} {named}{verb['rest']}?"
        yield from _ask_after(f"{asked} {named} {verb['aux']}{verb['rest']}")
        thing = match["noun"].strip() or _THINGS.get(match["wh"].lower())
        if thing:
            relative = f"{at.lower()} which" if at else "that"
            yield f"The {thing} {relative} {named} {verb['aux']}{verb['rest']} is"


def _ask_after(asked: str) -> Iterator[str]:
    yield from (f"{order} {asked}?" for order in ("Can you tell me", "Do you know"))
    yield from (f"{order} {asked}." for order in ("Tell me", "I would like to know"))


def _conjugate(aux: str, rest: str) -> str:
    """What stands behind the subject once the question is a statement: "did ... win" -> "won"."""
    match = _VERB.match(rest)
    if aux not in ("did", "does") or match is None:
        return f"{aux}{rest}"
    verb = match["verb"]
    if aux == "does":
        verb = (
            "has" if verb == "have" else verb + ("es" if verb.endswith(("sh", "ch", "s", "x", "o")) else "s")
        )
    elif verb not in INFINITIVES and verb not in UNCHANGING:
        ending = "d" if verb.endswith("e") else "ed"
        verb = _PASTS.get(verb) or (verb[:-1] + "ied" if re.search(r"[^aeiou]y$", verb) else verb + ending)
    return f"{match['adverb'] or ''}{verb}{match['tail']}".strip()


_RULES = (
    (_NOUN, _say_noun), (_FRONTED, _say_fronted), (_LAST, _say_last), (_SUBJECT, _say_subject),
)  # fmt: skip
