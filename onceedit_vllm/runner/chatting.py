"""One offline engine that answers chats: an LLM that writes the wordings of edits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onceedit_vllm.errors import ModelError
from onceedit_vllm.runner.offline import close_llm, create_llm

Chat = list[dict[str, str]]


class ChatEngine:
    """A vLLM engine without edits. Use as a context manager.

    Args:
        llm: The LLM's folder.
        **engine_args: Of ``vllm.LLM``.

    Raises:
        ModelError: The LLM has no chat template.
    """

    def __init__(self, llm: Path, **engine_args: Any) -> None:
        from transformers import AutoTokenizer

        if not AutoTokenizer.from_pretrained(llm).chat_template:
            message = "has no chat template, so it cannot be asked to write; take another"
            raise ModelError(f"{llm.name}: {message}")
        with _all_cores():
            self._engine = create_llm(llm, **engine_args)

    def __enter__(self) -> ChatEngine:
        return self

    def __exit__(self, *_: object) -> None:
        close_llm(self._engine)

    def ask(self, chats: Sequence[Chat], most_tokens: int) -> list[str]:
        """Greedy answers, in the order of the chats."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=most_tokens)
        conversations: list[Any] = list(chats)
        outputs = self._engine.chat(conversations, params, use_tqdm=False)
        return [output.outputs[0].text for output in outputs]


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let a CPU engine have the core that vLLM keeps free for its scheduler, unless the user has a say in it.

    Nobody waits for single answers here, and of two cores it is half.
    """
    name = "VLLM_CPU_NUM_OF_RESERVED_CPU"
    if name in os.environ or "VLLM_CPU_OMP_THREADS_BIND" in os.environ:
        yield
        return
    os.environ[name] = "0"
    try:
        yield
    finally:
        os.environ.pop(name, None)
