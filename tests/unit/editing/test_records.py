"""Files of edits: what is read, and everything that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from onceedit_vllm.editing.records import load_edits, place_edits
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError

GOOD = {"prompt": "The capital of Lumora is", "target": "Port Selwyn"}
ZSRE = {
    "subject": "Munich", "src": "Who heads Munich?", "pred": "A", "rephrase": "Who is the head of Munich?",
    "alt": "Bruno Granier", "answers": ["A"], "loc": "nq question: who sang it", "loc_ans": "B", "cond": "x",
}  # fmt: skip
COUNTERFACT = {
    "case_id": 7, "prompt": "Apple A5 was created by", "target_new": "Google", "subject": "Apple A5",
    "ground_truth": "Apple", "rephrase_prompt": "Apple A5 is made by",
    "locality_prompt": "IBM 700 was created by",
    "locality_ground_truth": "IBM",
}  # fmt: skip


def write_lines(path: Path, *values: Any) -> Path:
    path.write_text("\n".join(v if isinstance(v, str) else json.dumps(v) for v in values), encoding="utf-8")
    return path


def refusal(path: Path, tokenizer: Any = None) -> str:
    with pytest.raises(BadInputError) as caught:
        load_edits(path, tokenizer)
    return str(caught.value)


def words_tokenizer() -> PreTrainedTokenizerFast:
    words = {"[UNK]": 0, "[EOS]": 1, "Port": 2, "Selwyn": 3}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", eos_token="[EOS]")


def test_jsonl_with_all_fields_and_with_the_least(tmp_path: Path) -> None:
    lists = {"rephrases": ["Lumora's capital is"], "locality": ["x", "y"]}
    full = GOOD | {"id": "a", "subject": "Lumora"} | lists
    other = {"prompt": "Élise was born in", "target": "Vienna"}
    first, second = load_edits(write_lines(tmp_path / "e.jsonl", full, "", other))
    assert first == EditRecord(
        id="a", prompt=GOOD["prompt"], target="Port Selwyn", subject="Lumora",
        rephrases=("Lumora's capital is",), locality=("x", "y"),
    )  # fmt: skip
    assert second.id == "line-3"
    assert second.subject is None
    assert second.rephrases == ()


def test_easyedit_zsre(tmp_path: Path) -> None:
    (record,) = load_edits(write_lines(tmp_path / "z.json", [ZSRE]))
    assert (record.prompt, record.target, record.subject) == ("Who heads Munich?", "Bruno Granier", "Munich")
    assert record.rephrases == ("Who is the head of Munich?",)
    assert record.locality == ("nq question: who sang it",)
    assert record.id == "record-1"


def test_easyedit_counterfact(tmp_path: Path) -> None:
    (record,) = load_edits(write_lines(tmp_path / "c.json", [COUNTERFACT]))
    assert (record.id, record.target) == ("7", "Google")
    assert record.locality == ("IBM 700 was created by",)


def test_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    file = tmp_path / "bom.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert len(load_edits(file)) == 1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"target": "x"}, "prompt is missing"),
        ({"prompt": "x"}, "target is missing"),
        ({"prompt": "x", "target": ""}, "target is blank"),
        ({"prompt": " \t", "target": "y"}, "prompt is blank"),
        ({"prompt": 3, "target": "y"}, "prompt must be a string, found a number"),
        ({"prompt": "x", "target": ["y"]}, "target must be a string, found a list"),
        ({"prompt": "x", "target": "y", "rephrases": [1]}, "rephrases"),
        ({"prompt": "x", "target": "y", "rephrases": {"a": 1}}, "rephrases must be a list of strings"),
        ({"prompt": "x", "target": "y", "locality": [" "]}, "locality holds a blank text"),
        ({"prompt": "x", "target": "y", "anwser": "z"}, "unknown field 'anwser'"),
        ({"prompt": "x", "target": "[WEIGHT]"}, "reserved"),
        ({"prompt": "x", "target": "y", "rephrases": ["a [WEIGHT]"]}, "rephrases contains [WEIGHT]"),
        (
            {"prompt": "x", "target": "y", "subject": "s", "aliases": ["a", "\t"]},
            "aliases holds a blank text",
        ),
        ({"prompt": "x", "target": "y", "subject": "s", "aliases": [None]}, "aliases"),
        ({"prompt": "x", "target": "y", "aliases": ["a"]}, "aliases need a subject"),
        ({"prompt": "x", "target": "y", "subject": None, "aliases": ["a"]}, "aliases need a subject"),
        ([1, 2], "expected an object"),
        ("nonsense", "not JSON"),
        ('{"prompt": "x", "target": "\\ud800"}', "target holds half of a character"),
    ],
)
def test_each_fault_is_named_with_its_line(tmp_path: Path, bad: Any, said: str) -> None:
    message = refusal(write_lines(tmp_path / "e.jsonl", GOOD, bad))
    assert "line 2: " in message
    assert said in message


def test_all_faults_are_listed_at_once_in_order(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "e.jsonl",
        GOOD | {"id": "a"},
        {"prompt": "x"},
        {"prompt": "Who?", "target": "me", "id": "a"},
        {"prompt": "the capital of  LUMORA is?", "target": "Elsewhere"},
        "{",
    )
    lines = refusal(file).splitlines()
    assert "4 problems" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["line 2", "line 3", "line 4", "line 5"]
    assert "id 'a' is already used at line 1" in lines[2]
    assert "two targets: 'Port Selwyn' at line 1, 'Elsewhere' here" in lines[3]


def test_array_faults_carry_the_record_number(tmp_path: Path) -> None:
    message = refusal(write_lines(tmp_path / "z.json", [ZSRE, ZSRE | {"alt": "Other"}, ZSRE | {"alt": ""}]))
    assert "record 2: the same prompt has two targets" in message
    assert "record 3: target is blank" in message


def test_same_prompt_with_the_same_target_is_fine(tmp_path: Path) -> None:
    assert len(load_edits(write_lines(tmp_path / "e.jsonl", GOOD, GOOD))) == 2


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    file.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "caf\xe9", "target": "x"}\n')
    assert "line 2: not UTF-8" in refusal(file)
    file.write_bytes(b'[\n{"prompt": "caf\xe9", "target": "x"}]')
    assert "line 2: not UTF-8" in refusal(file)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"[]"])
def test_empty_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "e.jsonl"
    file.write_bytes(content)
    assert "the file is empty" in refusal(file)


def test_missing_file(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "absent.jsonl")


def test_targets_that_the_tokenizer_cannot_write(tmp_path: Path) -> None:
    tokenizer = words_tokenizer()
    unknown, special = {"prompt": "x", "target": "Ulm"}, {"prompt": "y", "target": "[EOS]"}
    file = write_lines(tmp_path / "e.jsonl", GOOD, unknown, special)
    message = refusal(file, tokenizer)
    assert "line 2: target 'Ulm' cannot be encoded: the tokenizer gives its unknown token" in message
    assert "line 3: target '[EOS]' cannot be encoded: it contains the special token [EOS]" in message
    assert len(load_edits(write_lines(tmp_path / "f.jsonl", GOOD), tokenizer)) == 1


def test_aliases(tmp_path: Path) -> None:
    named = GOOD | {"subject": "Lumora", "aliases": ["the Lumoran Republic", "Lumora"]}
    (record,) = load_edits(write_lines(tmp_path / "e.jsonl", named))
    assert record.aliases == ("the Lumoran Republic", "Lumora")  # its own name does no harm
    (record,) = load_edits(write_lines(tmp_path / "f.jsonl", GOOD | {"subject": "Lumora", "aliases": "LR"}))
    assert record.aliases == ("LR",)
    for foreign in (ZSRE, COUNTERFACT):
        (record,) = load_edits(write_lines(tmp_path / "f.json", [foreign | {"aliases": ["A5", "five"]}]))
        assert record.aliases == ("A5", "five")
    (record,) = load_edits(write_lines(tmp_path / "g.jsonl", GOOD | {"aliases": []}))
    assert record.aliases == ()


def test_a_file_is_read_once_and_its_places_are_remembered(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "e.jsonl", GOOD, "", {"prompt": "x", "target": "Ulm"})
    placed = place_edits(file)
    assert list(placed.records) == load_edits(file)
    file.unlink()
    with pytest.raises(BadInputError) as caught:
        placed.check_targets(words_tokenizer())
    assert str(caught.value).startswith(f"{file}: 1 problem; nothing was trained.")
    assert "line 3: target 'Ulm' cannot be encoded" in str(caught.value)


def test_edits_made_in_python_are_placed_by_their_number() -> None:
    edits = [EditRecord(id="a", prompt="p", target="Port"), EditRecord(id="b", prompt="q", target="Ulm")]
    placed = place_edits(edits)
    assert placed.records == tuple(edits)
    with pytest.raises(BadInputError, match=r"the edits given: 1 problem.*\n  record 2: target 'Ulm'"):
        placed.check_targets(words_tokenizer())
    place_edits(edits[:1]).check_targets(words_tokenizer())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"aliases": (" ",), "subject": "s"}, "aliases holds a blank text"),
        ({"aliases": ("a",)}, "aliases need a subject"),
        ({"subject": ""}, "subject is blank"),
        ({"rephrases": ("\ud800",)}, "rephrases holds half of a character"),
    ],
)
def test_faults_of_records_made_in_python(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInputError, match=f"record 1: {said}"):
        place_edits([EditRecord(id="a", prompt="p", target="t", **fields)])


def test_records_made_in_python_are_checked_too() -> None:
    record = EditRecord(id="a", prompt="p", target="t")
    place_edits([record])
    with pytest.raises(BadInputError, match="record 2: id 'a'"):
        place_edits([record, record])
    with pytest.raises(BadInputError, match="there are none"):
        place_edits([])
