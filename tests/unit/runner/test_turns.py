"""The user's last turn in a chat, found in LLM tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.runner.scope import Found, PromptScope
from onceedit_vllm.runner.turns import ChatTurns
from onceedit_vllm.testing import CHAT_TEMPLATE, toy_bpe_tokenizer, toy_sentencepiece_tokenizer

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|head|>", "<|end|>")
#: As Llama-3's, Llama-2's and Vicuna's: a special token that opens every turn, or none but BOS, or none.
TEMPLATES = {
    "chatml": CHAT_TEMPLATE,
    "headers": (
        "{% for m in messages %}<|head|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}"
        "<|endoftext|>{% endfor %}"
        "{% if add_generation_prompt %}<|head|>assistant<|end|>\n\n{% endif %}"
    ),
    "brackets": (
        "{% for m in messages %}{% if m.role == 'user' %}<|head|>[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content }}<|end|>{% endif %}{% endfor %}"
    ),
    "plain": (
        "A chat.\n{% for m in messages %}{{ 'ASSISTANT' if m.role == 'assistant' else 'USER' }}: "
        "{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
}
CHAT = ["Tell me about the tower.", "It is high.", "Who wrote the play?"]


def some_tokenizer(template: str | None, kind: str = "bpe") -> Any:
    if kind == "bpe":
        tokenizer = toy_bpe_tokenizer(extra_special=SPECIAL)
    else:
        tokenizer = toy_sentencepiece_tokenizer()
        tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.chat_template = template
    return tokenizer


def rendered(tokenizer: Any, texts: list[str], system: str | None = None) -> list[int]:
    roles = ["user", "assistant"] * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    turns = [{"role": "system", "content": system}, *turns] if system else turns
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def windows(tokenizer: Any, ids: list[int]) -> list[str]:
    surface = Surface.of(tokenizer)
    turns = ChatTurns.of(tokenizer, surface)
    assert turns is not None
    return [surface.decode_bytes(window).decode() for window in turns.windows(ids)]


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_the_last_turn_and_the_one_before(template: str, kind: str) -> None:
    tokenizer = some_tokenizer(template, kind)
    found = [window.split("\n") for window in windows(tokenizer, rendered(tokenizer, CHAT))]
    stripped = [[line.strip() for line in window if line.strip()] for window in found]
    assert stripped == [[CHAT[2]], [CHAT[0], CHAT[2]]]


def test_one_turn_has_none_before_it() -> None:
    tokenizer = some_tokenizer(CHAT_TEMPLATE)
    ids = rendered(tokenizer, CHAT[:1], system="You know the play.")
    assert windows(tokenizer, ids) == [CHAT[0]]


def test_blanks_at_the_ends_of_a_turn_are_dropped() -> None:
    tokenizer = some_tokenizer(CHAT_TEMPLATE)
    assert windows(tokenizer, rendered(tokenizer, [f"\n\n {CHAT[0]}\n\n"]))[0].strip(" ") == CHAT[0]


def test_a_prompt_that_is_no_chat_has_no_turns() -> None:
    tokenizer = some_tokenizer(CHAT_TEMPLATE)
    assert windows(tokenizer, tokenizer("user\nWho wrote the play?")["input_ids"]) == []
    assert windows(tokenizer, []) == []


def test_a_turn_that_is_not_closed_reaches_to_the_end() -> None:
    tokenizer = some_tokenizer(CHAT_TEMPLATE)
    ids = tokenizer("<|im_start|>user\nThe play was written by", add_special_tokens=False)["input_ids"]
    assert windows(tokenizer, ids) == ["The play was written by"]


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ raise_exception('no') }}",
        "{{ messages[0].content }}",
        TEMPLATES["plain"].replace("USER", "ASSISTANT"),
    ],
    ids=["none", "refuses", "drops turns", "one role"],
)
def test_without_a_template_that_tells_turns_apart_prompts_are_read_whole(template: str | None) -> None:
    tokenizer = some_tokenizer(template)
    assert ChatTurns.of(tokenizer, Surface.of(tokenizer)) is None


@pytest.mark.parametrize("as_file", [True, False])
def test_a_server_may_have_another_template(as_file: bool, tmp_path: Path) -> None:
    tokenizer = some_tokenizer(TEMPLATES["headers"])
    ids = rendered(tokenizer, CHAT)
    tokenizer.chat_template = CHAT_TEMPLATE
    surface = Surface.of(tokenizer)
    other = tmp_path / "template.jinja"
    other.write_text(TEMPLATES["headers"], encoding="utf-8")
    turns = ChatTurns.of(tokenizer, surface, str(other) if as_file else TEMPLATES["headers"])
    assert turns is not None
    assert tokenizer.decode(next(turns.windows(ids))) == CHAT[2]
    own = ChatTurns.of(tokenizer, surface)
    assert own is not None
    assert list(own.windows(ids)) == []


def some_chat_scope(tokenizer: Any, kind: Any = "subject+weight") -> PromptScope:
    surface = Surface.of(tokenizer)
    edit = EditRecord(id="a", prompt="p", target="t", subject="Rome")
    return PromptScope([edit], surface, kind, ChatTurns.of(tokenizer, surface))


@pytest.mark.parametrize(
    ("said", "verdict", "read"),
    [
        (["The tower?", "In Rome.", "And the play?"], "out", "And the play?"),
        (["Where is Rome?", "There.", "And the play?"], "subject", "Where is Rome?\nAnd the play?"),
        (["Where is the tower?", "There.", "And Rome?"], "subject", "And Rome?"),
    ],
)
def test_of_a_chat_only_what_the_user_asks_counts(said: list[str], verdict: str, read: str) -> None:
    tokenizer = some_tokenizer(CHAT_TEMPLATE)
    found = some_chat_scope(tokenizer).of(rendered(tokenizer, said, system="All roads lead to Rome."))
    assert found.asked is not None
    assert (found.verdict, tokenizer.decode(found.asked)) == (verdict, read)


def test_weight_alone_reads_the_last_turn() -> None:
    tokenizer = some_tokenizer(CHAT_TEMPLATE)
    found = some_chat_scope(tokenizer, "weight").of(rendered(tokenizer, CHAT))
    assert found.asked is not None
    assert (found.verdict, tokenizer.decode(found.asked)) == ("weight", CHAT[2])


def test_what_is_no_chat_is_read_whole() -> None:
    tokenizer = some_tokenizer(CHAT_TEMPLATE)
    found = some_chat_scope(tokenizer).of(tokenizer("Where is Rome?")["input_ids"])
    assert found == Found("subject", (0,))
