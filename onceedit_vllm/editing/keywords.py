"""Frames made of a frame's content words, for prompts that no rule of grammar fits.

They are clumsy on purpose: what they share with an unknown rephrase is the subject and the words
that carry the relation, and these are what the gate is to look at.
"""

from __future__ import annotations

import re

from onceedit_vllm.editing.frames import GAP

_FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "the", "of", "in", "on", "at", "to", "by", "for", "from", "with", "as", "into", "off"),
        *("is", "was", "are", "were", "be", "been", "has", "have", "had", "do", "does", "did", "can", "will"),
        *("who", "what", "which", "where", "when", "how", "why", "whose", "many", "much", "that", "this"),
        *("it", "its", "his", "her", "their", "and", "or", "not", "me", "you", "tell", "name", "called"),
        *("year", "number", "thing", "one", "there", "about"),
    )
)
_SHAPES = (
    "{} {key}", "{key} {}", "{}, {key}:", "{}: {key}?", "{key}, {}:", "What about {} and {key}?",
    "Tell me about the {key} of {}.", "The {key} of {} is", "What is the {key} of {}?", "{}'s {key} is",
    "Which {key} belongs to {}?", "When asked about {key} and {}, say", "As for {key}, {} is",
)  # fmt: skip


def keyword_frames(frame: str) -> list[str]:
    """Frames from each run of content words, and from all of them together."""
    runs: list[list[str]] = [[]]
    for word in re.findall(r"\{\}|[\w'’-]+", frame):
        if word == GAP or word.lower() in _FUNCTION_WORDS or len(word) < 3:
            runs.append([])
        else:
            runs[-1].append(word)
    keys = [" ".join(run) for run in runs if run]
    if len(keys) > 1:
        keys.append(" ".join(keys))
    return [shape.replace("{key}", key) for key in dict.fromkeys(keys) for shape in _SHAPES]
