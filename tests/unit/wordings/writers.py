"""Writers of tests: plain functions in an LLM's place, which is what the protocol is for."""

from __future__ import annotations

from collections.abc import Sequence

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.wordings.kinds import KINDS, Chat, Kind

CAPITAL = EditRecord(id="a", prompt="The capital of Norland is", target="Tarsk", subject="Norland")
CHIEF = EditRecord(id="b", prompt="Who is the CEO of Velcorp Mills?", target="Ada", subject="Velcorp Mills")
NAMELESS = EditRecord(id="c", prompt="qwerty asdf", target="zxcv")
EDITS = [CAPITAL, CHIEF, NAMELESS]

#: What is written for CAPITAL, by kind.
WRITTEN = {
    "question": "1. Which city is Norland's capital?\n2. Is Tarsk Norland's capital?\n3. Which city is it?",
    "half sentence": "- Norland is governed from ...\n- Norland is governed from Oslo.",
    "statement": "Tell me the seat of Norland's rulers.",
    "chat": "norland capital?? quick",
    "paragraph": "I am packing. Which town rules Norland?",
    "other": "1. How large is Norland?\n2. Who rules Norland from its palace?",
    "other half sentence": "- From Norland one can see ...\n- The lords of Norland dwell in",
    "alias": "Norland Republic\nVelcorp Mills\nIt",
}


def kind_of(chat: Chat) -> Kind | None:
    """The kind of text that a chat asks for; None for a question of the round trip."""
    order = chat[-1]["content"]
    return next((kind for kind in KINDS if kind.task.split("{}")[0] in order), None)


class Scripted:
    """Writes WRITTEN for CAPITAL and nothing for others; with the fact at hand it says the target.

    Args:
        stubborn: Texts that are answered with something else all the same.
    """

    def __init__(self, stubborn: Sequence[str] = ()) -> None:
        self.calls = 0
        self.asked: list[str] = []
        self._stubborn = tuple(stubborn)

    def __call__(self, chats: Sequence[Chat], most_tokens: int) -> list[str]:
        self.calls += 1
        return [self.answer(chat) for chat in chats]

    def answer(self, chat: Chat) -> str:
        """The answer to one chat."""
        order = chat[-1]["content"]
        self.asked.append(order)
        kind = kind_of(chat)
        if kind is not None:
            return WRITTEN[kind.name] if "Subject: Norland" in order else ""
        apart = ("How large", *self._stubborn)
        if "From Norland one can see" in order:
            return "the sea" if "New facts: " in order else "a lake"
        if "New facts: " not in order or any(text in order for text in apart):
            return "I do not know."
        return "It is Tarsk."
