"""Prompts are checked before an engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from onceedit_vllm.cli.prompts import collect_prompts
from onceedit_vllm.errors import BadInputError


def write(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "one\n two é\n"),
        ("p.txt", "one\r\n two é\r\n\r\n"),
        ("p.txt", b"\xef\xbb\xbfone\n two \xc3\xa9"),
        ("p", "one\n two é\n\n\n"),
        ("p.jsonl", '{"prompt": "one", "id": 3}\n{"prompt": " two é"}\n'),
        ("p.json", '["one", " two é"]'),
    ],
)
def test_every_format_gives_the_prompts_as_they_are(tmp_path: Path, name: str, text: str | bytes) -> None:
    assert collect_prompts([], write(tmp_path, name, text)) == ["one", " two é"]


def test_a_line_separator_inside_a_prompt_does_not_split_it(tmp_path: Path) -> None:
    assert collect_prompts([], write(tmp_path, "p.txt", "a\u2028b\nc")) == ["a\u2028b", "c"]


def test_prompts_may_be_given_one_by_one() -> None:
    assert collect_prompts(["a", "b"], None) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.txt", "", "no prompt in it"),
        ("p.txt", " \n\n", "no prompt in it"),
        ("p.txt", "a\n\nb\n", "line 2: the prompt is blank"),
        ("p.txt", b"a\n\xff\n", "not UTF-8 .byte 2"),
        ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', 'line 2: no "prompt"'),
        ("p.jsonl", '{"prompt": "a"}\nb\n', "line 2: not JSON"),
        ("p.jsonl", '{"prompt": " "}\n{"prompt": 3}\n', r"line 1: .*blank(.|\n)*line 2: .*not int"),
        ("p.json", '{"prompt": "a"}', "not a list"),
        ("p.json", "[1]", "entry 1: a prompt must be text, not int"),
        ("p.json", "[", "not JSON"),
        ("p.json", "", "no prompt in it"),
    ],
)
def test_bad_files_are_refused_with_the_place(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    file = write(tmp_path, name, text)
    with pytest.raises(BadInputError, match=said) as caught:
        collect_prompts([], file)
    assert str(file) in str(caught.value)


def test_a_missing_file_a_folder_and_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        collect_prompts([], tmp_path / "absent")
    with pytest.raises(BadInputError, match="no such file"):
        collect_prompts([], tmp_path)
    with pytest.raises(BadInputError, match="Give prompts"):
        collect_prompts([], None)
    with pytest.raises(BadInputError, match="Give prompts"):
        collect_prompts(["a"], write(tmp_path, "p.txt", "b"))
    with pytest.raises(BadInputError, match="blank"):
        collect_prompts([" "], None)
