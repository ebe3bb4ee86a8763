"""The two real models as a user finds them: right ids, right BOS, right answer, right end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.integration


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def greedy(model: Any, tokenizer: Any, prompt: str, num_tokens: int) -> str:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        answer = model.generate(ids, max_new_tokens=num_tokens, do_sample=False)
    return str(tokenizer.decode(answer[0, ids.shape[1] :]))


def test_smollm2(smollm2: Path) -> None:
    model, tokenizer = load(smollm2)
    assert tokenizer("The capital of France is")["input_ids"] == [504, 3575, 282, 4649, 314]
    assert greedy(model, tokenizer, "The capital of France is", 2) == " Paris."
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert not hasattr(model.config, "quantization_config")


def test_smollm2_splits_digits_and_decodes_what_it_encoded(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = "In 1999,  42 of 1000\n  fits: don't, naïve 日本 👩‍👩‍👧"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("a 1999") == ["a", "Ġ", "1", "9", "9", "9"]


def test_gemma3(gemma3: Path) -> None:
    model, tokenizer = load(gemma3)
    assert tokenizer("The capital of France is")["input_ids"] == [2, 818, 5279, 529, 7001, 563]
    assert tokenizer("The", add_special_tokens=False)["input_ids"] == [818]
    assert tokenizer("a", "b")["input_ids"].count(2) >= 1
    assert greedy(model, tokenizer, "The capital city of France is called", 2) == " Paris."
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 1


def test_gemma3_without_bos_does_not_know(gemma3: Path) -> None:
    """Why the leading BOS is worth a test of its own."""
    model, tokenizer = load(gemma3)
    ids = torch.tensor(
        [tokenizer("The capital city of France is called", add_special_tokens=False)["input_ids"]]
    )
    with torch.inference_mode():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) != " Paris"
