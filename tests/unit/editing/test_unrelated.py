"""Unrelated prompts, the project's and the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from onceedit_vllm.editing.unrelated import Unrelated, default_unrelated, load_unrelated
from onceedit_vllm.errors import BadInputError


def test_the_default_set_is_large_and_varied() -> None:
    prompts = [item.prompt for item in default_unrelated()]
    assert len(set(prompts)) == len(prompts) >= 150
    assert any("def " in prompt for prompt in prompts)
    assert any(not prompt.isascii() for prompt in prompts)
    assert max(map(len, prompts)) > 5 * min(map(len, prompts))


def test_text_jsonl_and_easyedit(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("one\n\n two \n", encoding="utf-8")
    assert load_unrelated(text) == [Unrelated("one"), Unrelated("two")]
    lines = tmp_path / "b.jsonl"
    lines.write_text('{"prompt": "one", "target": "1"}\n{"prompt": "two"}\n', encoding="utf-8")
    assert load_unrelated(lines) == [Unrelated("one", "1"), Unrelated("two")]
    array = tmp_path / "c.json"
    records = '[{"prompt": "p", "target_new": "n", "ground_truth": "g"}, {"src": "q"}]'
    array.write_text(records, encoding="utf-8")
    assert load_unrelated(array) == [Unrelated("p", "g"), Unrelated("q")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b"ok\n\xff\n", "line 2: not UTF-8"),
        ("a.jsonl", b'{"text": "x"}', "prompt is missing"),
        ("a.jsonl", b'{"prompt": "x"}\n[1]\nno', "line 3: not JSON"),
    ],
)
def test_faults_are_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(BadInputError, match=said):
        load_unrelated(file)
