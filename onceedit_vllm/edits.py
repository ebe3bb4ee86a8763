"""The nouns that every room knows: an edit, and the text that a plug-in reads around a prompt."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from onceedit_vllm.config import TemplateName


class EditRecord(BaseModel):
    """One edit: after it, `prompt` is answered with `target`.

    Attributes:
        id: Unique in its file.
        prompt: A half sentence or a question.
        target: The new answer, without a leading space.
        subject: Who or what the prompt is about, if known.
        rephrases: Other wordings that must be answered with the target too.
        locality: Prompts whose answers must not change.
        aliases: Other names of the subject, by which requests are recognised too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str
    prompt: str
    target: str
    subject: str | None = None
    rephrases: tuple[str, ...] = ()
    locality: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


def normalise(text: str) -> str:
    """Fold case, spaces and closing punctuation, for comparing prompts."""
    return re.sub(r"\s+", " ", text).strip().rstrip(" .?!:").casefold()


class Template(NamedTuple):
    """What stands before and after a prompt in the text that the plug-in reads."""

    prefix: str
    suffix: str

    def wrap(self, prompt: str) -> str:
        """Put the prompt into the template; a prompt already wrapped is returned as it is."""
        if not self.prefix and not self.suffix:
            return prompt
        if prompt.startswith(self.prefix) and prompt.endswith(self.suffix):
            return prompt
        return f"{self.prefix}{prompt}{self.suffix}"


#: The space before "[Half Sentence]" is the paper's.
TEMPLATES: dict[TemplateName, Template] = {
    "none": Template("", ""),
    "answer": Template("", "\nAnswer:"),
    "zsre": Template("Answer this question:\n[Question]: ", "\n[Answer]:"),
    "counterfact": Template("Complete this half sentence.\n [Half Sentence]: ", "\n[Answer]:"),
}
