"""Questions of any kind in other words."""

from __future__ import annotations

import pytest

from onceedit_vllm.editing.fronted import reword_question
from onceedit_vllm.editing.reword import reword


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            "In what year did {} last visit Norland?",
            ["{} last visited Norland in", "The year in which {} last visited Norland is"],
        ),
        ("At what age did the painter {} win a prize?", ["Tell me at what age the painter {} won a prize."]),
        ("How many seats did the {} lose in 1958?", ["The number of seats that the {} lost in 1958 is"]),
        ("Which song does {} sing last?", ["The song that {} sings last is"]),
        ("When did {} set sail?", ["The date when {} set sail is", "{} set sail in"]),
        ("What did {}, the old smith, die of in 1932?", ["What {}, the old smith, died of in 1932 is"]),
        ("What month, day, and year was {} opened?", ["When was {} opened?", "{} was opened on"]),
        ("In which month and year did {} close?", ["On what date did {} close?", "{} closed on"]),
        ("Who was the first woman to be seen on {}", ["The first woman to be seen on {} was"]),
        ("What is the word for {} in the north?", ["The word for {} in the north is"]),
        (
            "Who was awarded the {}?",
            ["The person who was awarded the {} is", "Do you know who was awarded the {}?"],
        ),
        ("What type of eclipse occurred on {}?", ["Can you tell me what type of eclipse occurred on {}?"]),
        (
            "{} is an old name for which creature?",
            ["{} is an old name for", "For which creature is {} an old name?"],
        ),
        ("{} is also known as what?", ["{} is also known as"]),
        ("In 1993, {} was elected to which academy?", ["In 1993, {} was elected to"]),
        ("With which game would you use {}, a disc?", []),
        ("What place did the album {} by the Falks reach?", []),
        ("The capital of {} is", []),
        ("{} by", []),
    ],
)
def test_a_question_in_other_words(frame: str, expected: list[str]) -> None:
    found = list(reword_question(frame))
    assert set(expected) <= set(found)
    assert bool(found) == bool(expected)
    assert all(other.count("{}") == 1 for other in found)


def test_the_general_rules_serve_where_the_others_know_little() -> None:
    assert "{} last visited Norland in" in reword("In what year did {} last visit Norland?")
    assert "I would like to know the colour of {}." in reword_question("What is the colour of {}?")
    assert "I would like to know the colour of {}." not in reword("What is the colour of {}?")
