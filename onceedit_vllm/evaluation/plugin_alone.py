"""The edited plug-in alone: what is right here and wrong behind an open gate was lost in transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from onceedit_vllm.edits import TEMPLATES
from onceedit_vllm.evaluation.answers import Said
from onceedit_vllm.evaluation.tokens import Tokens
from onceedit_vllm.pack import EditPack

if TYPE_CHECKING:
    import torch


class PlugInAlone:
    """A pack's model, read by transformers with its own template, in float32."""

    def __init__(self, pack: EditPack) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(pack.model_dir)
        model: Any = AutoModelForCausalLM.from_pretrained(pack.model_dir, dtype=torch.float32)
        self._model = model.to(device).eval()
        self._template = TEMPLATES[pack.manifest.template]
        self._weight_id = pack.manifest.weight_token_id
        self.tokens = Tokens(self._tokenizer)

    def text_of(self, prompt: str) -> str:
        """What it reads for a prompt."""
        return self._template.wrap(prompt)

    def ask(self, prompts: Sequence[str], max_tokens: int) -> list[Said]:
        """Greedy answers to one batch, each to its end of sequence."""
        import torch

        ids, mask = self._padded([self.tokens.of_prompt(self.text_of(prompt)) for prompt in prompts])
        eos = self._tokenizer.eos_token_id
        with torch.inference_mode():
            written = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=eos,
                eos_token_id=eos,
                suppress_tokens=[self._weight_id],
            )
        return [self._cut(row) for row in written[:, ids.shape[1] :].tolist()]

    def force(self, prompts: Sequence[str], golds: Sequence[list[int]]) -> list[Said]:
        """The tokens that win at each place of the gold ones, given those before them."""
        import torch

        texts = [self.tokens.of_prompt(self.text_of(prompt)) for prompt in prompts]
        joined = [text + gold[:-1] for text, gold in zip(texts, golds, strict=True)]
        ids, mask = self._padded(joined)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask, position_ids=places).logits
            logits[..., self._weight_id] = -torch.inf
        winners = [logits[row, -len(gold) :].argmax(-1).tolist() for row, gold in enumerate(golds)]
        return [Said(self._text_of(won), won) for won in winners]

    def _padded(self, texts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) ids and mask, padded on the left."""
        import torch

        width = max(map(len, texts))
        pad = self._tokenizer.eos_token_id
        ids = torch.tensor([[pad] * (width - len(text)) + text for text in texts])
        mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in texts])
        return ids.to(self._model.device), mask.to(self._model.device)

    def _cut(self, ids: list[int]) -> Said:
        eos = self._tokenizer.eos_token_id
        end = ids.index(eos) + 1 if eos in ids else len(ids)
        return Said(self._text_of(ids[:end]), ids[:end])

    def _text_of(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
