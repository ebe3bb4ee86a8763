"""The engine of a writer: which cores it may have, and what LLM it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.errors import ModelError
from onceedit_vllm.runner import chatting
from onceedit_vllm.runner.chatting import ChatEngine

RESERVED, BOUND = "VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_CPU_OMP_THREADS_BIND"


class Tokenizer:
    chat_template = "{{ messages }}"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What the engine's processes are told of cores, each time that one is made."""
    found: list[str | None] = []

    def create(folder: Path, **engine_args: Any) -> object:
        found.append(os.environ.get(RESERVED))
        return object()

    monkeypatch.delenv(RESERVED, raising=False)
    monkeypatch.delenv(BOUND, raising=False)
    monkeypatch.setattr(chatting, "create_llm", create)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda folder: Tokenizer())
    return found


def test_it_has_all_cores_and_nobody_else_is_told_so(seen: list[str | None]) -> None:
    ChatEngine(Path("llm"))
    assert seen == ["0"]
    assert RESERVED not in os.environ


@pytest.mark.parametrize(("name", "value"), [(RESERVED, "1"), (BOUND, "0-3")])
def test_the_users_own_setting_stays(
    seen: list[str | None], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    ChatEngine(Path("llm"))
    assert seen == [value if name == RESERVED else None]
    assert os.environ[name] == value


def test_an_llm_that_cannot_chat_is_refused(seen: list[str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "chat_template", None)
    with pytest.raises(ModelError, match="llm: has no chat template"):
        ChatEngine(Path("llm"))
    assert seen == []
