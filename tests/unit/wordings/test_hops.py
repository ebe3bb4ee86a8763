"""Questions a step further than an edit, by their words."""

from __future__ import annotations

import pytest

from onceedit_vllm.wordings.hops import asks_further, phrases
from onceedit_vllm.wordings.relations import relation_bank


@pytest.mark.parametrize(
    ("frame", "phrase"),
    [
        ("The capital of {} is", "the capital of {}"),
        ("What is the capital of {}?", "the capital of {}"),
        ("Who is {}'s mother?", "{}'s mother"),
        ("The name of the mother of {} is", "the mother of {}"),
        ("What is the name of {}'s mother?", "{}'s mother"),
        ("The headquarters of {} are in", "the headquarters of {}"),
        ("The city where {} is located is", "the city where {} is located"),
        ("Which city is the capital of {}?", "the capital of {}"),
        ("Who is {} married to?", None),
        ("{} was born in", None),
        ("The capital is", None),
        ("{} is", None),
    ],
)
def test_what_a_frame_asks_for(frame: str, phrase: str | None) -> None:
    assert phrases([frame]) == ((phrase,) if phrase else ())


@pytest.mark.parametrize(
    ("frame", "own"),
    [
        ("The gender of the mother of {} is", "The mother of {} is"),
        ("Where was {}'s mother born?", "Who is the mother of {}?"),
        ("{}’s father was born in", "{} was born in"),
        ("The mascot of {}'s biggest rival is", "The mascot of {} is"),
        ("Who is the mayor of the capital of the {}?", "The capital of the {} is"),
        ("The currency of the country {} is associated with is", "The country {} is associated with is"),
        ("The author of the sequel of {} is", "The author of {} is"),
    ],
)
def test_a_step_further(frame: str, own: str) -> None:
    assert asks_further(frame, own)


@pytest.mark.parametrize(
    ("frame", "own"),
    [
        ("The mother of {} is", "The mother of {} is"),
        ("What is the name of {}'s mother?", "The mother of {} is"),
        ("The mother of {} is called", "The mother of {} is"),
        ("Where are {}'s headquarters located?", "The headquarters of {} are in"),
        ("In which country is the location of {}?", "{} is located in"),
        ("The author of {} is the writer", "Who wrote {}?"),
        ("Which company is the owner of {}?", "{} is owned by"),
        ("{}'s headmaster was born in", "{}'s headmaster was born in"),
        ("{}'s capitals are", "The capital of {} is"),
        ("Which city is the capital of {}?", "The capital of {} is"),
        ("{}'s head office is located in", "{} is headquartered in"),
        ("{}'s brother in law is", "The brother-in-law of {} is"),
        ("How long is {}'s return policy?", "{}'s return policy is"),
        ("How high is the price of the {}?", "The price of the {} is"),
        ("Who is the CEO of {} based in Berlin?", "The CEO of {} is"),
        ("Who is {}'s CEO and owner?", "The CEO of {} is"),
        ("What is the position of {} in the national team?", "The position of {} is"),
        ("Which team is {}'s greatest rival?", "The biggest rival of {} is"),
        ("Who composed the soundtrack of {}?", "The soundtrack of {} is by"),
        ("What country is the neighbour of {}?", "The neighbour of {} is"),
        ("On what channel is the finale of {}?", "The finale of {} is on"),
        ("The mother of {} was the writer", "The mother of {} was"),
        ("The mouth of {} is located in the", "The mouth of {} is in the"),
        ("The sequel of {} was published as", "The sequel of {} is"),
        ("Who holds the title of the CEO of {}?", "The CEO of {} is"),
        ("The largest city of {} by population is", "The largest city of {} is"),
    ],
)
def test_no_step_further(frame: str, own: str) -> None:
    assert not asks_further(frame, own)


def test_no_wording_of_a_relation_is_further_than_another() -> None:
    """All pairs of the bank: the edit in one wording, asked for in another."""
    further = [
        (own, asked)
        for relation in relation_bank()
        for own in relation.wordings
        for asked in relation.wordings
        if asks_further(asked, own)
    ]
    assert further == []
