"""What the plug-in reads of a text."""

from __future__ import annotations

import pytest

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.plugin.scope import SubjectMatcher
from onceedit_vllm.runner.own_names import by_own_names

EDITS = [
    EditRecord(id="a", prompt="Mount Everest is in", target="Chile", subject="Mount Everest"),
    EditRecord(id="b", prompt="The mother of Ada Quill is", target="Ida", subject="Ada Quill"),
    EditRecord(id="c", prompt="NASA is led by", target="Ida", subject="NASA", aliases=("the Agency",)),
    EditRecord(id="d", prompt=r"\\1 Inc. is in", target="Ida", subject=r"\1 Inc."),
    EditRecord(id="f", prompt="New York is", target="Ida", subject="New York"),
    EditRecord(id="g", prompt="New York City is", target="Ida", subject="New York City"),
    EditRecord(id="e", prompt="ıo is in", target="Ida", subject="İo Straße"),
]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("what country is MOUNT EVEREST in?", "what country is Mount Everest in?"),
        ("WHERE ON EARTH IS MOUNT EVEREST'S TOP?", "where on earth is Mount Everest's top?"),
        ("MOUNT EVEREST", "Mount Everest"),
        ("MOUNT EVEREST!! MOUNT", "mount everest!! mount".replace("mount everest", "Mount Everest")),
        ("WHO LEADS NASA, THE AGENCY?", "who leads NASA, the Agency?"),
        ("Who leads NASA?", "Who leads NASA?"),
        ("where is mount everest", "where is mount everest"),  # careless typing is known from training
        ("The mother of Ada Mia Quill is", "The mother of Ada Quill is"),
        ("THE MOTHER OF ADA MIA QUILL IS", "THE MOTHER OF ADA MIA QUILL IS"),  # names no edit
        ("Where is \\1 INC.?", "Where is \\1 Inc.?"),
        ("日本 NASA 東京", "日本 NASA 東京"),
        ("42 + 1 = ?", "42 + 1 = ?"),
        ("NASA 华为,请问 CEO 是谁?", "NASA 华为,请问 CEO 是谁?"),
        ("Who is the mayor of NEW YORK CITY, NEW YORK?", "Who is the mayor of New York City, New York?"),
        ("MOUNT EVERESTS", "MOUNT EVERESTS"),
    ],
)
def test_by_the_edits_own_names_and_not_in_capitals(text: str, read: str) -> None:
    named = SubjectMatcher(EDITS).look(text)
    assert (by_own_names(text, named, EDITS) if named.edits else text) == read
