"""Prompts and targets in one model's tokens, and what a token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onceedit_vllm.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens:
    """A tokenizer, as the evaluation needs it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def of_prompt(self, text: str) -> list[int]:
        """A prompt as vLLM encodes it, without the end of sequence that some tokenizers close texts with."""
        ids: list[int] = list(self._tokenizer(text)["input_ids"])
        while len(ids) > 1 and ids[-1] == self._tokenizer.eos_token_id:
            ids.pop()
        return ids

    def of_turn(self, text: str) -> list[int]:
        """A user's turn in the model's own chat template, up to where its answer begins.

        Raises:
            ModelError: The tokenizer has no chat template.
        """
        if not self._tokenizer.chat_template:
            raise ModelError(f"{self._tokenizer.name_or_path}: has no chat template; take another protocol")
        turn = [{"role": "user", "content": text}]
        rendered: Any = self._tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def of_target(self, prompt: str, target: str) -> list[int]:
        """A target's tokens behind a prompt; its own where a token would reach over the seam."""
        before = self.of_prompt(prompt)
        gap = "" if prompt[-1:].isspace() else " "
        whole = self.of_prompt(f"{prompt}{gap}{target.strip()}")
        if whole[: len(before)] == before and len(whole) > len(before):
            return whole[len(before) :]
        return list(self._tokenizer(gap + target.strip(), add_special_tokens=False)["input_ids"])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token; of one that is no text alone, half a character, its id as well."""
        texts = [(token, str(self._tokenizer.decode([token]))) for token in ids]
        return [f"{text}{token}" if "\ufffd" in text else text for token, text in texts]


def load_tokens(folder: Any) -> Tokens:
    """Read the tokenizer of a model's folder.

    Raises:
        ModelError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return Tokens(AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: no tokenizer can be loaded ({error}); give a complete model") from error
