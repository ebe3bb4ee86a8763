"""How real prompts look around a question: chats, contexts, openers, remarks, careless typing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from importlib import resources

from onceedit_vllm.editing.unrelated import default_unrelated
from onceedit_vllm.wordings.frames import OPENERS, is_question

#: Said in front of a half sentence or a question without changing what is asked.
HALF_SENTENCE_OPENERS = (
    "It is known that ", "In fact, ", "Fact: ", "Complete the sentence: ", "As far as I know, ",
    "According to the latest news, ", "Everyone knows that ", "Remember that ", "Today, ",
    "Complete this.\n", "Go on with this sentence.\n", "You are an expert.\n", "Reply in English.\n",
)  # fmt: skip
QUESTION_OPENERS = (
    "Please tell me: ", "Quick question: ", "I have a question. ", "Answer briefly: ",
    "I would like to know: ", "Do you know this? ", "Hey, ", "ok so ", "Sorry to bother you, but ",
    "Answer this question.\n", "You are an expert.\n", "Reply in English.\n", "In one line: ",
)  # fmt: skip
#: Said behind a question.
REMARKS = (
    "I forgot.", "Thanks!", "Just the name please.", "I need it for school.", "Asking for a friend.",
    "My brother says I am wrong.", "Short answer only.", "No need to explain.", "I should know this.",
    "we have a bet", "please be quick", "can't remember", "not sure anymore",
)  # fmt: skip
#: Stories that lead up to a question; the sentences of the unrelated set serve as well.
STORIES = (
    "My daughter asked me this at breakfast.", "I am filling in a form.", "We are planning a trip.",
    "This came up in a quiz last night.", "I am writing a report for work.", "I lost my notes.",
    "A colleague wanted to know.", "There is a gap in my crossword.",
)  # fmt: skip
#: (only around questions?, text around the prompt)
CHATS = ((False, "User: {}\nAssistant:"), (True, "Question: {}\nAnswer:"), (True, "Q: {}\nA:"))


def dress(text: str, rng: random.Random, *, chats: bool = True) -> str:
    """Put a prompt the way somebody might; what is asked stays the same.

    Args:
        text: A question or a half sentence.
        rng: Chooses.
        chats: Also put chats around it; not where a template stands there.
    """
    choices: list[Callable[[str, random.Random], str]] = [_lower, _open, _open, _lead_up, _lead_up]
    choices += [_remark, _remark, _unmark, _unmark] if text.endswith("?") else []
    choices += [_chat, _chat] if chats else []
    return rng.choice(choices)(text, rng)


def _lower(text: str, rng: random.Random) -> str:
    return text.lower()


def _unmark(text: str, rng: random.Random) -> str:
    """Typed in haste: a question without its mark, half of the time with a small letter."""
    asked = text.removesuffix("?").rstrip()
    return asked if rng.random() < 0.5 else lower_first(asked)


def _open(text: str, rng: random.Random) -> str:
    opener = rng.choice(QUESTION_OPENERS if is_question(text) else HALF_SENTENCE_OPENERS)
    return opener + (text if opener.endswith((": ", ". ", "? ", "\n")) else lower_first(text))


def _lead_up(text: str, rng: random.Random) -> str:
    draw = rng.random()
    before = STORIES if draw < 0.25 else _sentences() if draw < 0.6 else _fragments()
    return f"{rng.choice(before)} {text}"


def _remark(text: str, rng: random.Random) -> str:
    asked = text if rng.random() < 0.5 else lower_first(text)
    return f"{asked} {rng.choice(REMARKS)}"


def _chat(text: str, rng: random.Random) -> str:
    only_questions, around = rng.choice(CHATS)
    return around.replace("{}", text) if is_question(text) or not only_questions else text


def lower_first(text: str) -> str:
    """Lower the first letter of a function word; names keep their capital."""
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if first.rstrip(",") in OPENERS else text


@cache
def _fragments() -> tuple[str, ...]:
    """Noise, as a cut-out of a longer text is for who reads on: written by SmolLM2-135M out of nothing."""
    lines = resources.files("onceedit_vllm.editing").joinpath("fragments.jsonl").read_text(encoding="utf-8")
    texts = (json.loads(line)["text"] for line in lines.splitlines())
    return tuple(text if text.endswith((".", "!", "?", ":")) else f"{text}." for text in texts)


@cache
def _sentences() -> tuple[str, ...]:
    return tuple(
        f"{item.prompt} {item.target}."
        for item in default_unrelated()
        if item.target and not is_question(item.prompt) and "\n" not in item.prompt
    )
