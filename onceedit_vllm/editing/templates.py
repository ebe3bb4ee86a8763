"""The texts a plug-in reads around a prompt (paper, appendix A)."""

from __future__ import annotations

from typing import NamedTuple

from onceedit_vllm.config import TemplateName


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
    "zsre": Template("Answer this question:\n[Question]: ", "\n[Answer]:"),
    "counterfact": Template("Complete this half sentence.\n [Half Sentence]: ", "\n[Answer]:"),
}
