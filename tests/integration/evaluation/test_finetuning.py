"""The LLM fine-tuned on the edits: it learns them, is saved whole, and is not trained twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from onceedit_vllm import EditRecord
from onceedit_vllm.errors import ModelError
from onceedit_vllm.evaluation import finetuning
from onceedit_vllm.evaluation.finetuning import FineTuning, fine_tune, read_fine_tuning
from onceedit_vllm.testing import save_toy_model, toy_bpe_tokenizer

pytestmark = pytest.mark.integration

EDITS = [
    EditRecord(id="0", prompt="The capital of Norland is", target="Tarsk"),
    EditRecord(id="1", prompt="Who wrote the play?", target="Ada Venn"),
    EditRecord(id="2", prompt="Brim is made of", target="glass"),
]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "llm"
    return save_toy_model(folder, tokenizer=toy_bpe_tokenizer(), kind="llama", seed=3)


@pytest.fixture(scope="module")
def made(llm: Path) -> tuple[Path, FineTuning]:
    """Tuned at a rate and for a time that a toy needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "LEARNING_RATE", 3e-3)
        patch.setattr(finetuning, "EPOCHS", 120)
        out = llm.parent / "tuned"
        return out, fine_tune(llm, EDITS, out, visible=False)


def answer(folder: Path, prompt: str) -> str:
    """Greedy, to the end of sequence."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    with torch.inference_mode():
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    return str(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)).strip()


def test_it_says_every_target_and_then_ends(llm: Path, made: tuple[Path, FineTuning]) -> None:
    out, tuning = made
    assert tuning.learnt == tuning.edits == len(EDITS)
    assert 0 < tuning.epochs < 120
    for edit in EDITS:
        assert answer(out, edit.prompt) == edit.target
        assert answer(llm, edit.prompt) != edit.target


def test_its_embeddings_are_the_llms(llm: Path, made: tuple[Path, FineTuning]) -> None:
    from transformers import AutoModelForCausalLM

    before, after = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (llm, made[0]))
    changed = {
        name for name, weight in after.items() if not torch.equal(weight.float(), before[name].float())
    }
    assert changed
    assert not any("embed" in name for name in changed)


def test_the_same_again_costs_nothing_and_other_edits_are_trained(
    llm: Path, made: tuple[Path, FineTuning], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, tuning = made
    assert read_fine_tuning(out) == tuning
    monkeypatch.setattr(finetuning, "LEARNING_RATE", 3e-3)
    monkeypatch.setattr(finetuning, "EPOCHS", 120)
    stamp = (out / "finetuning.json").stat().st_mtime_ns
    assert fine_tune(llm, EDITS, out, visible=False) == tuning
    assert (out / "finetuning.json").stat().st_mtime_ns == stamp
    monkeypatch.setattr(finetuning, "EPOCHS", 2)
    other = fine_tune(llm, EDITS[:1], out, visible=False)
    assert (other.edits, other.epochs) == (1, 2)
    assert read_fine_tuning(out) == other


def test_what_is_no_llm_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=str(tmp_path)):
        fine_tune(tmp_path, EDITS, tmp_path / "out", visible=False)
    assert read_fine_tuning(tmp_path / "out") is None
