"""Around a prompt much may change, the question may not."""

from __future__ import annotations

import random

import pytest

from onceedit_vllm.editing.dress import _fragments, dress, lower_first


@pytest.mark.parametrize("text", ["The Moon is", "Lyon is", "Who wrote it?", "Name the mayor of Lyon."])
def test_the_prompt_stays_whole(text: str) -> None:
    for seed in range(200):
        dressed = dress(text, random.Random(seed))
        assert text.rstrip("?").lower() in dressed.lower()


def test_a_half_sentence_gets_nothing_behind_it_but_a_chat() -> None:
    dressed = [dress("The Moon is", random.Random(seed), chats=False) for seed in range(200)]
    assert all(text.lower().endswith("the moon is") for text in dressed)
    assert len(set(dressed)) > 20


def test_any_text_may_stand_before_it_and_has_come_to_an_end() -> None:
    dressed = [dress("The Moon is", random.Random(seed), chats=False) for seed in range(400)]
    noise = [text for text in dressed if any(fragment in text for fragment in _fragments())]
    assert len(set(noise)) > 10
    assert all(text.removesuffix("The Moon is").endswith((". ", "! ", "? ", ": ")) for text in noise)


def test_names_keep_their_capital_behind_an_opener() -> None:
    assert lower_first("The Moon is") == "the Moon is"
    assert lower_first("Lyon is") == "Lyon is"
