"""Frames: a prompt with its subject taken out.

A frame is a string with `{}` in the subject's place: "The capital of {} is".
"""

from __future__ import annotations

import re

from onceedit_vllm.edits import EditRecord

GAP = "{}"

_WORD = r"[A-Z0-9][\w'’.&-]*"
_CAPITALISED = re.compile(rf"{_WORD}(?:\s+(?:(?:of|the|de|la|del|von|van|da|di|and|&)\s+)*{_WORD})*")
#: Words that start a sentence and are no part of a name.
OPENERS = frozenset(
    (
        *("The", "A", "An", "In", "On", "At", "Who", "What", "Which", "Where", "When", "Why", "How"),
        *("Is", "Are", "Was", "Were", "Do", "Does", "Did", "Can", "Could", "Tell", "Name", "Give"),
        *("Please", "According", "To", "From", "By", "For", "Of", "As", "It", "This", "That", "There"),
        *("If", "Into", "Whose", "Whom", "Complete"),
    )
)
#: Nouns asked for with "who".
PERSON_NOUN = re.compile(
    r"\b(ceo|president|director|author|founder|king|queen|mayor|leader|head|inventor|captain|coach"
    r"|minister|composer|architect|owner|chair\w*|creator|painter|writer|editor|manager|wife|husband"
    r"|chef|boss|executive|singer|drummer|champion|winner|holder|actor|actress|discoverer|designer"
    r"|governor|chancellor)\b",
    re.IGNORECASE,
)


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
    while words and (words[0].rstrip(",.") in OPENERS or PERSON_NOUN.fullmatch(words[0])):
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
        if found and found.group(1).capitalize() not in OPENERS:
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
