"""The user's last turn in chats that real models' own templates render."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.runner.turns import ChatTurns
from tests.integration.plugin.tokenizers_for_sync import real_model_folder, real_tokenizer

pytestmark = pytest.mark.integration

SAID = ["Tell me about France.", "It is in Europe.", "What is its capital?"]


#: In the manner of these models; the copies of their tokenizers here have none.
TEMPLATES = {
    "llama3": (
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
        "<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llama2": (
        "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} </s>"
        "{% else %}<s>[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    ),
    "mistral": (
        "<s>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>"
        "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    ),
}


def chat_tokenizer(llm: str) -> Any:
    """A real tokenizer with its own chat template, or one like it."""
    if llm in TEMPLATES:
        tokenizer = copy.deepcopy(real_tokenizer(llm))
        tokenizer.chat_template = TEMPLATES[llm]
        return tokenizer
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(real_model_folder(llm))


@pytest.mark.parametrize("system", [None, "You are asked about France."])
@pytest.mark.parametrize("llm", ["smollm2-135m", "qwen2.5-coder-0.5b", "llama3"])
def test_turns_behind_a_system_prompt_and_without(llm: str, system: str | None) -> None:
    check(llm, system)


@pytest.mark.parametrize("llm", ["llama2", "mistral"])
def test_turns_of_templates_without_a_role_for_the_system(llm: str) -> None:
    check(llm, None)


def check(llm: str, system: str | None) -> None:
    """The last turn, and that behind the one before, are found; and nothing in what is no chat."""
    tokenizer = chat_tokenizer(llm)
    surface = Surface.of(tokenizer)
    turns = ChatTurns.of(tokenizer, surface)
    assert turns is not None
    roles = ("user", "assistant", "user")
    chat = [{"role": role, "content": text} for role, text in zip(roles, SAID, strict=True)]
    chat = [{"role": "system", "content": system}, *chat] if system else chat
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    found = list(turns.windows(tokenizer(text, add_special_tokens=False)["input_ids"]))
    assert [surface.bytes_of(window).decode() for window in found] == [SAID[2], f"{SAID[0]}\n{SAID[2]}"]
    once = tokenizer.apply_chat_template(chat[:-2], add_generation_prompt=True, tokenize=False)
    first = list(turns.windows(tokenizer(once, add_special_tokens=False)["input_ids"]))
    assert [surface.bytes_of(window).decode() for window in first] == [SAID[0]]
    assert list(turns.windows(tokenizer("user: What is its capital?")["input_ids"])) == []
