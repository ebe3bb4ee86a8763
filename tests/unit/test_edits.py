"""The paper's templates."""

from __future__ import annotations

import pytest

from onceedit_vllm.config import TemplateName
from onceedit_vllm.edits import TEMPLATES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none", "X"),
        ("zsre", "Answer this question:\n[Question]: X\n[Answer]:"),
        ("counterfact", "Complete this half sentence.\n [Half Sentence]: X\n[Answer]:"),
    ],
)
def test_wrapping_is_the_papers_and_happens_once(name: TemplateName, text: str) -> None:
    template = TEMPLATES[name]
    assert template.wrap("X") == text
    assert template.wrap(template.wrap("X")) == text
