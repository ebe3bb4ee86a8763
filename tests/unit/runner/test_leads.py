"""What stands before the question, and is not read."""

from __future__ import annotations

from typing import Any

import pytest

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.runner.leads import find_lead
from onceedit_vllm.runner.scope import PromptScope
from onceedit_vllm.testing import toy_bpe_tokenizer, toy_sentencepiece_tokenizer


def left(text: str) -> str:
    """What is left of a text about Rome."""
    lead = find_lead(text.encode(), lambda rest: b"Rome" in rest)
    raw = text.encode()
    return text if lead is None else (raw[: lead.start] + raw[lead.end :]).decode()


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("We plan a trip. Where is Rome?", "Where is Rome?"),
        ("Hi! My aunt is here. She asks where Rome is. Where?", "She asks where Rome is. Where?"),
        ("Is it far? \t Rome is in", "Rome is in"),
        ("He was born in 1921. Rome is in", "Rome is in"),
        ('"It is cold." Rome is in', "Rome is in"),
        ("Il fait très beau à Nîmes. Rome is in", "Rome is in"),
        ("Translate:\nIt is cold. Rome is in", "Translate:\nRome is in"),
        ("Rome is old. We like it. Where is Rome?", "Where is Rome?"),
    ],
)
def test_sentences_before_the_first_that_names_it_are_not_read(text: str, asked: str) -> None:
    assert left(text) == asked


@pytest.mark.parametrize(
    "text",
    [
        "Where is Rome?",
        "Where is Rome? I forgot. Thanks!",
        "Translate this. Rome is in",
        "Please correct the spelling. It is cold. Rome is in",  # all that is behind an order stays, too
        "Our notes are lost.\nRome is in",
        "Mr. Rome is in",
        "The U.S. Rome is in",
        "It is no. 1 in Rome",
        "We like e.g. Rome",
        "no capital follows. rome is in Rome",
        "It stood vs. Rome",
        "Cicero et al. Rome",
        "",
    ],
)
def test_the_rest_is_read_whole(text: str) -> None:
    assert left(text) == text


TOKENIZERS: dict[str, Any] = {"bpe": toy_bpe_tokenizer(), "sentencepiece": toy_sentencepiece_tokenizer()}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_of_tokens_just_the_question_is_left_and_it_begins_without_a_space(kind: str) -> None:
    encode = TOKENIZERS[kind]
    surface = Surface.of(encode)
    edits = [EditRecord(id=name, prompt="p", target="t", subject=name) for name in ("Rome", "Lima")]
    scope = PromptScope(edits, surface, "subject+weight")
    for prompt, asked in [
        ("The tower is in Paris. Where is Rome?", "Where is Rome?"),
        ("The tower is high. Zürich, Rome and you", "Zürich, Rome and you"),
    ]:
        found = scope.of(encode(prompt, add_special_tokens=False)["input_ids"])
        assert (found.verdict, found.named) == ("subject", (0,))
        assert found.asked is not None
        assert surface.bytes_of(found.asked).decode() == asked
    # Both are named, and the first sentence is needed for that.
    both = scope.of(encode("Lima is far. Where is Rome?", add_special_tokens=False)["input_ids"])
    assert (both.named, both.asked) == ((0, 1), None)
