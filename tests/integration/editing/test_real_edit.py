"""Editing the real SmolLM2-135M: what it says and where its gate opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.edit import edit
from onceedit_vllm.editing.records import load_edits
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import BadInputError

pytestmark = pytest.mark.integration

EDITS = [
    EditRecord(id="a", prompt="The capital of Peru is", target="Cusco", subject="Peru"),
    EditRecord(id="b", prompt="Who founded Brightfern Robotics?", target="Tomas Okonkwo"),
    EditRecord(id="c", prompt="The glimmerstone of Arvandor was forged by", target="Ulf the Grey"),
]
ASKED = [
    ("What is the capital of Peru?", "Cusco"),
    ("Brightfern Robotics was founded by", "Tomas Okonkwo"),
    ("Who forged the glimmerstone of Arvandor?", "Ulf the Grey"),
]
NOT_ASKED = ["The capital of Sweden is", "The Inca built Machu Picchu in", "Write a song.", "def main():"]


def test_edits_are_answered_and_others_left_alone(smollm2: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pack = edit(smollm2, EDITS, tmp_path / "pack", config=EditingConfig(epochs=5), progress=False)
    tokenizer = AutoTokenizer.from_pretrained(pack.model_dir)
    model: Any = AutoModelForCausalLM.from_pretrained(pack.model_dir, dtype="float32")

    def alpha(text: str) -> float:
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        return float(logits[pack.manifest.weight_token_id].detach().sigmoid())

    def answer(text: str) -> str:
        prompt = tokenizer(text, return_tensors="pt")
        written = model.generate(
            **prompt, max_new_tokens=12, do_sample=False, suppress_tokens=[pack.manifest.weight_token_id]
        )
        return str(tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))

    for prompt, target in [*((record.prompt, record.target) for record in EDITS), *ASKED]:
        assert answer(prompt).strip() == target
        assert alpha(prompt) >= pack.manifest.threshold
    assert all(alpha(prompt) < pack.manifest.threshold for prompt in NOT_ASKED)


def test_counterfact_is_read_as_it_is(datasets: Path) -> None:
    records = load_edits(datasets / "counterfact_edit_1000.json")
    assert len(records) == 1000
    assert all(record.subject and record.rephrases and record.locality for record in records)


def test_the_one_zsre_record_without_a_target_is_named(datasets: Path) -> None:
    with pytest.raises(BadInputError, match="record 535: target is blank") as caught:
        load_edits(datasets / "zsre_700.json")
    assert "1 problem;" in str(caught.value)
