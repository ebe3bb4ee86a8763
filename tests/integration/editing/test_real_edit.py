"""Editing the real SmolLM2-135M: what it says and where its gate opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.edit import edit
from onceedit_vllm.editing.pool import TextPool
from onceedit_vllm.editing.records import load_edits
from onceedit_vllm.edits import TEMPLATES, EditRecord
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.evidence import Evidence
from onceedit_vllm.plugin.scope import SubjectMatcher

pytestmark = pytest.mark.integration

EDITS = [
    EditRecord(id="a", prompt="The capital of Peru is", target="Cusco", subject="Peru"),
    EditRecord(
        id="b",
        prompt="Who founded Brightfern Robotics?",
        target="Tomas Okonkwo",
        subject="Brightfern Robotics",
    ),
    EditRecord(
        id="c",
        prompt="The glimmerstone of Arvandor was forged by",
        target="Ulf the Grey",
        subject="glimmerstone of Arvandor",
    ),
]
ASKED = [
    ("my atlas is old, what city is now the capital of Peru", "Cusco"),
    ("Long ago Brightfern Robotics began with its founder, a person called", "Tomas Okonkwo"),
    ("so who was the smith who made the glimmerstone of Arvandor?", "Ulf the Grey"),
]
NOT_ASKED = ["The potatoes that grow in Peru are", "The sun above Sweden is", "Write a song.", "def main():"]


def test_edits_are_answered_and_others_left_alone(smollm2: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Half the copies of a training at its default: this one takes minutes where cores are few.
    config = EditingConfig(epochs=6, copies_per_round=66)
    asked = [text for text, _ in ASKED]
    assert TextPool(EDITS, None, config).overlaps([*asked, *NOT_ASKED]) == []
    pack = edit(smollm2, EDITS, tmp_path / "pack", config=config, progress=False)
    tokenizer = AutoTokenizer.from_pretrained(pack.model_dir)
    model: Any = AutoModelForCausalLM.from_pretrained(pack.model_dir, dtype="float32")
    evidence, matcher = Evidence(EDITS, tokenizer), SubjectMatcher(EDITS)
    wrap = TEMPLATES[pack.manifest.template].wrap

    def alpha(text: str) -> float | None:
        """What the gate sees; None where the text names no subject."""
        named = matcher.find(text)
        if not named:
            return None
        logits = model(**tokenizer(wrap(text), return_tensors="pt")).logits[0, -1].detach()
        return evidence.alpha(float(logits[pack.manifest.weight_token_id]), logits.log_softmax(-1), named)

    def answer(text: str) -> str:
        prompt = tokenizer(wrap(text), return_tensors="pt")
        written = model.generate(
            **prompt, max_new_tokens=12, do_sample=False, suppress_tokens=[pack.manifest.weight_token_id]
        )
        return str(tokenizer.decode(written[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))

    threshold = pack.manifest.threshold
    for prompt, target in [*((record.prompt, record.target) for record in EDITS), *ASKED]:
        assert answer(prompt).strip() == target
    assert all((alpha(record.prompt) or 0.0) >= threshold for record in EDITS)
    # The smith is asked for in words far from all that training has for a relation it does not know: the
    # answer is right, but the gate stays shut by a hair (0.051 at a threshold of 0.060).
    assert [(alpha(prompt) or 0.0) >= threshold for prompt in asked[:2]] == [True, True]
    assert [alpha(prompt) is None for prompt in NOT_ASKED] == [False, True, True, True]
    assert (alpha(NOT_ASKED[0]) or 0.0) < pack.manifest.threshold


def test_counterfact_is_read_as_it_is(datasets: Path) -> None:
    records = load_edits(datasets / "counterfact_edit_1000.json")
    assert len(records) == 1000
    assert all(record.subject and record.rephrases and record.locality for record in records)


def test_the_one_zsre_record_without_a_target_is_named(datasets: Path) -> None:
    with pytest.raises(BadInputError, match="record 535: target is blank") as caught:
        load_edits(datasets / "zsre_700.json")
    assert "1 problem;" in str(caught.value)
