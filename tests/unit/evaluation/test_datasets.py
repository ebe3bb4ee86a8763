"""One record of each data set, made up in its format, and the real files where they are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.config import Dataset
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.evaluation.datasets import DATASETS, read_records
from onceedit_vllm.evaluation.record import EvalRecord

EDIT = {"prompt": "Velcorp is in", "subject": "Velcorp"}
RAW: dict[Dataset, dict[str, Any]] = {
    "zsre": {
        "src": "Where is Velcorp?", "alt": "Oslo", "subject": "Velcorp", "answers": ["Paris"],
        "rephrase": "What is Velcorp's place?", "loc": "nq question: who sang", "loc_ans": "Ada",
    },
    "counterfact": {
        "case_id": 7, **EDIT, "target_new": "Oslo", "ground_truth": "Paris",
        "rephrase_prompt": "Velcorp works from", "locality_prompt": "Tarsk is in",
        "locality_ground_truth": "Rome",
    },
    "counterfact-relations": {
        "requested_rewrite": {**EDIT, "target_new": "Oslo", "target_true": "Paris"},
        "p-paraphrase": {"prompts": ["News. Velcorp sits in"], "targets": ["Oslo"]},
        "p-subject_alias": {"prompts": ["Vel Corporation is in"], "targets": ["Oslo"]},
        "l-neighbor": {"prompts": ["Tarsk is in"], "targets": ["Rome"]},
        "l-relation": {"prompts": ["The head of Velcorp is"], "targets": ["Ada"]},
        "generation": {"prompts": ["Velcorp is known for", "Velcorp is known for"]},
        "p-reasoning": {"prompts": ["Its country is", "Its country is"], "targets": ["Norway", "N."]},
        "o-commonsense": {"prompts": "How to dry beads?", "right": "Wait.", "wrong": "Run."},
    },
    "qaedit": {
        "id": 3, "source": "NQ", "target": "Oslo", **EDIT, "rephrase": "Velcorp's place?",
        "locality": [{"loc": "who sang", "loc_ans": "Ada"}],
    },
    "halluedit": {
        "subject": "Velcorp", "object": "Oslo", "question": "Where is Velcorp?", "old_answer": "Paris",
        "paraphrased_question": "In which town is Velcorp?", "locality_question": "Who leads Velcorp?",
        "yes_question": "Is Velcorp in Oslo?", "no_question": "Is Velcorp in Paris?",
        "reversed_relation_question": "Who is in Oslo?", "question_2hop": "In which country is Velcorp?",
        "answer_2hop": "Norway",
    },
    "jsonl": {
        "id": "hq", **EDIT, "target": "Oslo", "aliases": ["Vel"], "rephrases": ["Velcorp sits in"],
        "alias_prompts": ["Vel is in"], "same_subject": ["The head of Velcorp is"],
        "locality": ["Tarsk is in"],
        "portability": [{"prompt": "Velcorp's country is", "answer": "Norway"}],
    },
}  # fmt: skip
STRATA: dict[Dataset, str] = {
    "zsre": "edit rephrase locality",
    "counterfact": "edit rephrase locality",
    "counterfact-relations": "edit rephrase alias locality same_subject generation unrelated portability",
    "qaedit": "edit rephrase locality",
    "halluedit": "edit rephrase same_subject portability portability yes_no yes_no",
    "jsonl": "edit rephrase alias locality same_subject portability",
}


def read_one(tmp_path: Path, dataset: Dataset, raw: Any) -> EvalRecord:
    file = tmp_path / "data.json"
    file.write_text(json.dumps([raw]), encoding="utf-8")
    (record,) = read_records(file, dataset)
    return record


@pytest.mark.parametrize("dataset", DATASETS)
def test_each_set_becomes_the_same_record(tmp_path: Path, dataset: Dataset) -> None:
    record = read_one(tmp_path, dataset, RAW[dataset])
    assert (record.target, record.subject) == ("Oslo", "Velcorp")
    assert record.old_answer == (None if dataset in ("qaedit", "jsonl") else "Paris")
    assert [question.stratum for question in record.questions] == STRATA[dataset].split()
    first, second = record.questions[:2]
    assert (first.prompt, first.answer, second.answer) == (record.prompt, "Oslo", "Oslo")
    answers = {
        q.stratum: q.answer for q in record.questions if q.stratum not in ("edit", "rephrase", "alias")
    }
    assert answers.get("portability", "Norway") in ("Norway", "Velcorp")
    assert answers.get("yes_no", "No") == "No"
    assert record.as_edit().target == "Oslo"


def test_ids_name_records(tmp_path: Path) -> None:
    ids = {name: read_one(tmp_path, name, RAW[name]).id for name in DATASETS}
    assert ids["counterfact"] == "7"
    assert (ids["qaedit"], ids["jsonl"], ids["zsre"]) == ("NQ-3", "hq", "record-1")


def test_a_file_of_another_set_is_refused_with_its_records(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps([RAW["zsre"], 3]), encoding="utf-8")
    with pytest.raises(BadInputError, match=r"2 of its records cannot be read as counterfact(?s:.)*record 1"):
        read_records(file, "counterfact")


def test_an_id_that_is_used_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text(json.dumps([RAW["jsonl"], RAW["jsonl"]]), encoding="utf-8")
    with pytest.raises(BadInputError, match="id hq: is used twice"):
        read_records(file, "jsonl")


def test_the_real_files(datasets: Path) -> None:
    files: dict[Dataset, str] = {
        "zsre": "zsre_700.json",
        "counterfact": "counterfact_edit_1000.json",
        "counterfact-relations": "counterfact_aliases_relations.json",
        "qaedit": "qaedit_500.json",
        "halluedit": "hallueditbench_dev.json",
    }
    counts = {
        name: Counter(q.stratum for record in read_records(datasets / file, name) for q in record.questions)
        for name, file in files.items()
    }
    assert counts["zsre"] == dict.fromkeys(("edit", "rephrase", "locality"), 700)
    assert counts["counterfact"] == dict.fromkeys(("edit", "rephrase", "locality"), 1000)
    assert counts["counterfact-relations"]["alias"] == 1222
    assert counts["counterfact-relations"]["rephrase"] == 840
    assert counts["qaedit"]["locality"] == 2500
    assert counts["halluedit"]["same_subject"] == 1136
