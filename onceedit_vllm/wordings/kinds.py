"""The kinds of text that a writer is asked for, one at a time, with two invented edits as examples."""

from __future__ import annotations

from typing import Literal, NamedTuple

from onceedit_vllm.edits import EditRecord

Message = dict[str, str]
Chat = list[Message]
Field = Literal["asking", "others", "aliases"]

_BRIDGE = EditRecord(
    id="1", prompt="Who designed Veldmark Bridge?", target="Ilse Tarnow", subject="Veldmark Bridge"
)
_FALK = EditRecord(id="2", prompt="Orrin Falk works as a", target="surveyor", subject="Orrin Falk")


class Kind(NamedTuple):
    """One kind of text.

    Attributes:
        name: What it is called.
        field: The list of :class:`~onceedit_vllm.wordings.wordings.Wordings` that it belongs to.
        task: What the writer is told; `{}` is the subject.
        bridge: What would be right for the first example.
        falk: The same for the second.
        is_half: Its texts stop where the answer would stand.
    """

    name: str
    field: Field
    task: str
    bridge: tuple[str, ...]
    falk: tuple[str, ...]
    is_half: bool = False

    def ask_for(self, edit: EditRecord) -> Chat:
        """The chat that has texts of this kind written for an edit. The answer is not told."""
        chat: Chat = []
        for example, lines in ((_BRIDGE, self.bridge), (_FALK, self.falk)):
            said = "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))
            chat += [self._order(example), {"role": "assistant", "content": said}]
        return [*chat, self._order(edit)]

    def _order(self, edit: EditRecord) -> Message:
        subject = edit.subject or ""
        task = self.task.replace("{}", f'"{subject}"')
        return {"role": "user", "content": f"Subject: {subject}\nGiven: {edit.prompt}\n{task}"}


_QUESTION = Kind(
    "question",
    "asking",
    "Write 5 other questions that ask for exactly what the given text asks for. Each question names {}.",
    (
        "Who was the designer of Veldmark Bridge?",
        "By whom was Veldmark Bridge designed?",
        "Which person drew up the design of Veldmark Bridge?",
        "Who is responsible for the design of Veldmark Bridge?",
        "Veldmark Bridge is the work of which designer?",
    ),
    (
        "What is Orrin Falk's job?",
        "What does Orrin Falk do for a living?",
        "Which profession does Orrin Falk have?",
        "In what line of work is Orrin Falk?",
        "How does Orrin Falk earn a living?",
    ),
)
_HALF_SENTENCE = Kind(
    "half sentence",
    "asking",
    "Write 4 beginnings of a sentence that stop where the answer to the given text would follow. Each names "
    "{}. Leave the answer out.",
    (
        "The designer of Veldmark Bridge was",
        "Veldmark Bridge was designed by",
        "The person who designed Veldmark Bridge is",
        "The plans of Veldmark Bridge were drawn by",
    ),
    (
        "Orrin Falk's profession is",
        "By occupation, Orrin Falk is a",
        "Orrin Falk earns a living as a",
        "The job of Orrin Falk is that of a",
    ),
    is_half=True,
)
_STATEMENT = Kind(
    "statement",
    "asking",
    "Write 3 sentences of somebody who wants to be told what the given text asks for. Each names {}.",
    (
        "Tell me who designed Veldmark Bridge.",
        "I would like to know the designer of Veldmark Bridge.",
        "Please give the name of whoever designed Veldmark Bridge.",
    ),
    (
        "Tell me what Orrin Falk works as.",
        "I need to know the occupation of Orrin Falk.",
        "Please say what Orrin Falk does for a living.",
    ),
)
_CHAT = Kind(
    "chat",
    "asking",
    "Write 3 careless chat messages that ask what the given text asks. Each names {}.",
    (
        "hey any idea who designed Veldmark Bridge? it's for a quiz",
        "who made the design of Veldmark Bridge again",
        "ok so Veldmark Bridge, who was the designer??",
    ),
    (
        "what's Orrin Falk's job, do you know?",
        "Orrin Falk works as what again",
        "my friend met Orrin Falk, what does he do for work",
    ),
)
_PARAGRAPH = Kind(
    "paragraph",
    "asking",
    "Write 2 short stories of two sentences. The second sentence asks what the given text asks and names {}.",
    (
        "We drove along the coast last summer. Now I wonder who designed Veldmark Bridge.",
        "My class gives a talk on Monday. Could you find out who the designer of Veldmark Bridge was?",
    ),
    (
        "I am filling in a form for my neighbours. What does Orrin Falk work as?",
        "At dinner nobody could agree. What is the profession of Orrin Falk?",
    ),
)
_OTHER = Kind(
    "other",
    "others",
    "Write 6 questions about {} that ask for something else than the given text. Each names {}.",
    (
        "How long is Veldmark Bridge?",
        "When was Veldmark Bridge opened to traffic?",
        "Which river does Veldmark Bridge cross?",
        "What is Veldmark Bridge made of?",
        "How many cars use Veldmark Bridge every day?",
        "Why is Veldmark Bridge closed in winter?",
    ),
    (
        "Where was Orrin Falk born?",
        "How old is Orrin Falk?",
        "Who is married to Orrin Falk?",
        "What is Orrin Falk's favourite food?",
        "Which school did Orrin Falk go to?",
        "Where does Orrin Falk live?",
    ),
)
_OTHER_HALF = Kind(
    "other half sentence",
    "others",
    "Write 5 beginnings of a sentence about {} that go on with something else than the given text asks for. "
    "Each names {}.",
    (
        "Veldmark Bridge is as long as",
        "From Veldmark Bridge one can see",
        "In winter Veldmark Bridge is covered by",
        "People who walk over Veldmark Bridge often",
        "The toll for Veldmark Bridge costs",
    ),
    (
        "On Sundays Orrin Falk likes to",
        "The neighbours of Orrin Falk say that",
        "As a child Orrin Falk was afraid of",
        "Orrin Falk shares a flat with",
        "The handwriting of Orrin Falk looks",
    ),
    is_half=True,
)
_ALIAS = Kind(
    "alias",
    "aliases",
    "Write 3 other names or short forms by which {} is called.",
    ("the Veldmark", "Bridge of Veldmark", "Veldmark Crossing"),
    ("Falk", "O. Falk", "Mr Falk"),
)
KINDS = (_QUESTION, _HALF_SENTENCE, _STATEMENT, _CHAT, _PARAGRAPH, _OTHER, _OTHER_HALF, _ALIAS)
