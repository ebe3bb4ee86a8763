"""What may not be evaluated: texts that training or calibration can generate."""

from __future__ import annotations

import random

import pytest

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter
from onceedit_vllm.editing.pool import TextPool
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.wordings.wordings import Wordings

RECORDS = [
    EditRecord(id="a", prompt="The capital of Norland is", target="Tarsk", subject="Norland"),
    EditRecord(id="b", prompt="Who wrote The Long Rain?", target="Ada Quill", subject="The Long Rain"),
    EditRecord(id="c", prompt="Elise Halden was born in", target="Vienna", subject="Elise Halden"),
]
CONFIG = EditingConfig(template="none")


@pytest.fixture(scope="module")
def pool() -> TextPool:
    return TextPool(RECORDS, None, CONFIG)


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("What is the capital of Norland?", "equal"),
        ("  the CAPITAL of norland is", "equal"),
        ("What is the capital of Germany?", "equal"),  # a neighbour, drawn as a counter-example
        ("Water is wet. What is the capital of Norland?", "equal"),  # a context makes no new text
        ("Which city is now the capital of Norland?", "nearly the same"),
        ("Where was Elise Halden born?", "equal"),
        ("Where was Anna Kowalski born?", "equal"),  # made up of a first and a last name
        ("city is the capital of Norland", "contained"),
    ],
)
def test_a_planted_text_is_found(pool: TextPool, text: str, how: str) -> None:
    found = pool.find(text)
    assert found is not None
    assert found.how == how


@pytest.mark.parametrize(
    "text",
    [
        "If you look up Norland in an atlas, the town marked as its seat of power would be",
        "My sister was reading The Long Rain on the train; do you remember whose book it is?",
        "Sing me a song about the sea and the moon tonight",
    ],
)
def test_a_text_of_its_own_is_apart(pool: TextPool, text: str) -> None:
    assert pool.find(text) is None


@pytest.mark.parametrize("seed", [0, 1])
def test_everything_that_is_generated_is_in_the_pool(seed: int) -> None:
    config = CONFIG.model_copy(update={"seed": seed})
    pool = TextPool(RECORDS, None, config)
    augmenter = Augmenter(RECORDS, None, config)
    heldout = augmenter.heldout()
    drawn = [example for part in heldout for example in part]
    for number in range(3):
        drawn += augmenter.examples(number)
    texts = random.Random(seed).sample([example.text for example in drawn], 150)
    assert [text for text in texts if pool.find(text) is None] == []


WRITTEN = Wordings(
    id="a",
    asking=(
        "Norland keeps its parliament in the town of", "we fly on Sunday. Which town runs Norland?",
        "Norland? Yes, Norland: which town runs it, please tell", "Parliament of Norland sits where exactly?",
    ),
    others=("Does Norland grow any kind of olives?", "Is skiing a popular sport with people in Norland?"),
)  # fmt: skip


def test_written_texts_are_no_evidence_either() -> None:
    pool, plain = TextPool(RECORDS, None, CONFIG, [WRITTEN]), TextPool(RECORDS, None, CONFIG)
    for text in (*WRITTEN.asking, *WRITTEN.others):
        assert plain.find(text) is None
        found = pool.find(text)
        assert found is not None
        assert found.how == "equal"
    # With another name, in a context, and one sentence of two.
    assert pool.find("Germany keeps its parliament in the town of") is not None
    assert pool.find("Water is wet. Does Norland grow any kind of olives?") is not None
    assert pool.find("Which town runs Norland?") is not None


@pytest.mark.parametrize("seed", [0, 1])
def test_everything_that_is_generated_with_written_texts_is_in_the_pool(seed: int) -> None:
    config = CONFIG.model_copy(update={"seed": seed})
    pool = TextPool(RECORDS, None, config, [WRITTEN])
    augmenter = Augmenter(RECORDS, None, config, [WRITTEN])
    drawn = [example for part in augmenter.heldout() for example in part]
    drawn += [example for number in range(3) for example in augmenter.examples(number)]
    texts = random.Random(seed).sample([example.text for example in drawn], 150)
    assert [text for text in texts if pool.find(text) is None] == []


def test_overlaps_lists_what_is_not_apart(pool: TextPool) -> None:
    texts = ["Who wrote The Long Rain?", "Sing me a song about the sea and the moon tonight"]
    assert [found.text for found in pool.overlaps(texts)] == texts[:1]
