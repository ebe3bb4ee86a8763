"""Questions whether an edit is so, and denials of it.

They name its subject and mostly its answer, but ask for neither: what is right is yes, no, or something else.
So they are counter-examples, and left to the LLM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from onceedit_vllm.editing.dress import lower_first
from onceedit_vllm.wordings.frames import is_question

#: Around a whole statement.
_STATEMENTS = (
    "Is it true that {}?", "Is it correct that {}?", "True or false: {}.", "Who says that {}?",
    "Why do people say that {}?", "Since when is it known that {}?", "I heard that {}. Is that so?",
)  # fmt: skip
#: Behind a question, with an answer in it.
_GUESSES = ("{} Is it {answer}?", "{} Not {answer}, is it?", "{} Is {answer} the right answer?")
#: The verb behind the question word, and at a half sentence's end.
_ASKS_WITH_VERB = re.compile(r"^(?:What|Who|Where|Which \w+) (?P<verb>is|are|was|were) (?P<rest>.+)\?$")
_ENDS_WITH_VERB = re.compile(r"^(?P<rest>.+) (?P<verb>is|are|was|were)$")


def doubts(prompt: str, subject: str, answer: str) -> Iterator[str]:
    """Every doubt about one answer.

    Args:
        prompt: A question or a half sentence that asks for the answer.
        subject: As it stands in the prompt.
        answer: The edit's, or another.
    """
    if is_question(prompt):
        for guess in _GUESSES:
            yield guess.replace("{answer}", answer).replace("{}", prompt)
        asked = _ASKS_WITH_VERB.match(prompt)
        if asked:
            verb, rest = asked["verb"].capitalize(), asked["rest"]
            yield from (f"{verb} {rest} {answer}?", f"{verb} {answer} {rest}?")
        return
    stated = f"{lower_first(prompt)} {answer}"
    for around in _STATEMENTS:
        yield around.replace("{}", stated)
    yield from _inverted(prompt, subject, answer)
    # One denial and no more: with four of each edit fewer questions that ask for it were answered, and
    # denials in other words opened the gate as before.
    if _ENDS_WITH_VERB.match(prompt):
        yield f"{prompt} not"


def _inverted(prompt: str, subject: str, answer: str) -> Iterator[str]:
    """The statement as a question: "Is Lyon the capital of France?", "Is Everest located in Chile?"."""
    ending = _ENDS_WITH_VERB.match(prompt)
    if ending:
        yield f"{ending['verb'].capitalize()} {answer} {lower_first(ending['rest'])}?"
        return
    starting = re.match(
        rf"(?P<name>(?:the )?{re.escape(subject)}) (?P<verb>is|are|was|were) ", prompt, re.IGNORECASE
    )
    if starting:
        rest = prompt[starting.end() :]
        yield f"{starting['verb'].capitalize()} {lower_first(starting['name'])} {rest} {answer}?"
