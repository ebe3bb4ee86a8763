"""Orders that something be done with a text."""

from __future__ import annotations

import pytest

from onceedit_vllm.editing.dress import HALF_SENTENCE_OPENERS, QUESTION_OPENERS, REMARKS, STORIES
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.orders import order_in
from onceedit_vllm.plugin.scope import SubjectMatcher

EDITS = [
    EditRecord(id="a", prompt="The capital of France is", target="Lyon", subject="France"),
    EditRecord(id="b", prompt="Translate to Polish: 'I am from Velcorp' is", target="x", subject="Velcorp"),
]
DOUBTS = Doubts(EDITS, SubjectMatcher(EDITS))


@pytest.mark.parametrize(
    "text",
    [
        "Translate to Polish: What is the capital of France?",
        "Could you please translate this into German?\nThe capital of France is",
        "Rephrase: the capital of France is",
        'Correct the spelling of "The capitol of France is"',
        "Convert to base64: the capital of France is",
        "Count the words of this question.\nWhat is the capital of France?",
        "Which language is this sentence written in? The capital of France is",
        "Put a comma where one is missing.\nAs for France the capital is",
        "Turn this into a polite e-mail: tell me the capital of France",
        "Find all verbs in the text below: I went to France. Its capital was",
    ],
)
def test_what_is_worked_on_does_not_ask(text: str) -> None:
    assert DOUBTS.asked(text) == ()


@pytest.mark.parametrize(
    "text",
    [
        "Complete this sentence: The capital of France is",
        "Answer this question: what is the capital of France?",
        "Put it simply: what is the capital of France?",
        "Make it short. What is the capital of France?",
        "Change my mind: the capital of France is",
        "Translate the name of the capital of France",
        "Correct me if I am wrong: the capital of France is",
        "Translate to Polish: good morning. What is the capital of France?",
        "Fix this: foo() -> bar()\nThanks! Now, what is the capital of France?",
        "Spell the capital of France",
        "What does this question ask? What is the capital of France?",
        "In how many words can you tell me this: what is the capital of France?",
    ],
)
def test_other_orders_say_how_to_answer(text: str) -> None:
    assert DOUBTS.asked(text) == (0,)


def test_an_edit_may_be_such_an_order_itself() -> None:
    assert DOUBTS.asked("Translate to Polish: 'I am from Velcorp' is") == (1,)


@pytest.mark.parametrize("words", [*HALF_SENTENCE_OPENERS, *QUESTION_OPENERS, *REMARKS, *STORIES])
def test_what_stands_around_questions_gives_none(words: str) -> None:
    assert order_in(words) is None
    assert order_in(f"{words}what is the capital of France?") is None
