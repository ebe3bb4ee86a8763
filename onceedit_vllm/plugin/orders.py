"""Orders that something be done with a text, in English: "Translate to Polish: Who leads Velcorp?".

Who gives one asks for a translation or a number, and for nothing that the text asks for. Orders that say how
to answer ("Answer briefly:", "Complete the sentence:", "Put it simply:") are none of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_POLITE = r"^\W*(?:(?:please|now|kindly|can you|could you|would you|help me)\W+)*"
_TEXT = (
    r"(?:sentences?|text|questions?|statement|lines?|paragraph|passage|phrase|message|tweet|review|e-?mail)\b"
)
#: A text that is pointed at.
_THIS = rf"(?:this\b(?! simply)|these\b|the (?:following|next)\b|(?:the|my|every|each) (?:\w+ )?{_TEXT})"
_PART = (
    r"(?:letters?|vowels?|consonants?|words?|verbs?|nouns?|adjectives?|pronouns?|synonyms?|commas?|rhymes?"
    r"|typos?|mistakes?|errors?|spelling|grammar|syllables?|characters?)\b"
)
_ORDER = re.compile(
    rf"{_POLITE}(?:"
    r"(?:translate|reword|rephrase|paraphrase|proofread|spell-?check|encode|decode|capitali[sz]e|punctuate)\b"
    rf"|(?:rewrite|correct|fix|improve|shorten|classify|categori[sz]e|copy|convert|turn|put|change|spell"
    rf"|summari[sz]e) {_THIS}"
    rf"|(?:count|remove|delete|replace|underline|find|put|correct|fix|mark|list) "
    rf"(?:all |any |every |each |the |an? |my |of )*(?:\w+ )?{_PART}"
    r"|convert (?:in)?to (?:base ?64|hex\w*|binary|morse|rot13|ascii|(?:upper|lower)[ -]?case|sql)\b)",
    re.IGNORECASE,
)
#: Questions about a text that is pointed at.
_ABOUT = re.compile(
    rf"{_POLITE}(?:which|what|how many|is|are|does)\b(?=[^?:]*\b(?:this|the (?:next|following)|my)\b)"
    rf"[^?:]*\b(?:language|grammatical(?:ly)?|sentiment|tone|topic|{_PART})[^?:]*[?:]",
    re.IGNORECASE,
)
#: "Translate to German and complete: The capital of France is".
_ANSWERED = re.compile(r"\b(?:complete|answer|finish|fill|continue|solve|reply|respond)\b", re.IGNORECASE)
_TEXT_BEGINS = re.compile(r"(?<=:)\s|(?=[\"“])")


def order_in(sentence: str) -> str | None:
    """The order that a sentence gives about what is behind it; None where it gives none.

    It ends with the sentence or, where the text stands in the same, with a colon or before a quotation mark.
    """
    if not (_ORDER.match(sentence) or _ABOUT.match(sentence)):
        return None
    order = _TEXT_BEGINS.split(sentence, maxsplit=1)[0]
    return None if _ANSWERED.search(order) else order


def places_worked_on(sentences: Sequence[str], names: Callable[[str], bool]) -> frozenset[int]:
    """Sentences that an order is about: it stands in them before the text, or is the sentence before them.

    Args:
        sentences: Of a text, in order.
        names: Whether a part of them names an edit: an order that does is about that.
    """
    found, behind = set(), False
    for place, sentence in enumerate(sentences):
        order = order_in(sentence)
        gives = order is not None and not names(order)
        if behind or (gives and order != sentence):
            found.add(place)
        behind = gives and order == sentence
    return frozenset(found)
