"""The real models as a user finds them: right ids, right BOS, right answer, right end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from onceedit_vllm.models import cached_model
from tests import real_tokenizers

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


@pytest.fixture(scope="module")
def qwen() -> Path:
    """The folder of the real Qwen2.5-Coder-0.5B, or a skip."""
    folder = cached_model("qwen2.5-coder-0.5b")
    if folder is None:
        pytest.skip("not cached; `onceedit models get qwen2.5-coder-0.5b` fetches 478 MB")
    return folder


def test_qwen_continues_and_ends_its_turn(qwen: Path) -> None:
    model, tokenizer = load(qwen)
    assert greedy(model, tokenizer, "The capital of France is", 2) == " Paris."
    turn = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    assert greedy(model, tokenizer, asked, 20) == "The capital of France is Paris.<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 151645
    assert (len(tokenizer), model.config.vocab_size) == (151665, 151936)
    assert not hasattr(model.config, "quantization_config")


def test_qwen_has_biases_and_a_head_of_its_own(qwen: Path) -> None:
    """The file keeps the head in 8 bits and the embeddings in 5, so they are two tables here."""
    model, _ = load(qwen)
    attention = model.model.layers[0].self_attn
    assert all(getattr(attention, f"{part}_proj").bias.abs().max() > 0 for part in "qkv")
    head, embeddings = model.lm_head.weight[:1000].float(), model.model.embed_tokens.weight[:1000].float()
    assert 0 < (head - embeddings).std() < 0.1 * head.std()


def test_qwen_has_the_tokenizer_of_its_makers(qwen: Path) -> None:
    """Against the published one: its tokens, no others, and the same ids for code, NFC and specials."""
    from tokenizers import Tokenizer

    ours = Tokenizer.from_file(str(qwen / "tokenizer.json"))
    theirs = real_tokenizers.qwen_tokenizer().backend_tokenizer
    assert ours.get_vocab() == theirs.get_vocab()
    texts = [
        "In 1999,  42 of 1000\n  fits: don't, na\u00efve \u65e5\u672c, cafe\u0301",
        "def f(x):\n\treturn x  # ok\r\n\r\n",
        "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><tool_call>x</tool_call><|fim_prefix|>[PAD151665]",
    ]
    assert [ours.encode(text).ids for text in texts] == [theirs.encode(text).ids for text in texts]
    assert all(ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text for text in texts[1:])
    assert ours.decode(ours.encode(texts[0]).ids) == texts[0].replace("e\u0301", "\u00e9")
