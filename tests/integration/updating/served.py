"""A toy's edits, and a pack of them as it is served."""

from __future__ import annotations

from typing import Any

import torch

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evidence import Evidence
from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin.doubts import Doubts
from onceedit_vllm.plugin.scope import SubjectMatcher

CAPITAL = EditRecord(id="a", prompt="The capital of Norland is", target="Tarsk", subject="Norland")
CHIEF = EditRecord(id="b", prompt="The head of Velcorp is", target="Ada Quill", subject="Velcorp")
LANGUAGE = EditRecord(id="c", prompt="The language of Norland is", target="Norse", subject="Norland")
COLOUR = EditRecord(id="n", prompt="The colour of the new flag is", target="green", subject="new flag")
CONFIG = EditingConfig(
    learning_rate=3e-3, epochs=40, copies_per_round=48, min_copies=8, unrelated_per_round=8,
    trained_share=1.0, checkpoint_seconds=0.0, learnt_probability=0.1,
)  # fmt: skip


class Served:
    """A pack as transformers loads it: what it writes, and its gate by the rules of serving."""

    def __init__(self, pack: EditPack) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.pack = pack
        self.tokenizer = AutoTokenizer.from_pretrained(pack.model_dir)
        self.model: Any = AutoModelForCausalLM.from_pretrained(pack.model_dir, dtype="float32")
        self.doubts = Doubts(pack.edits, SubjectMatcher(pack.edits))
        self.evidence = Evidence(pack.edits, self.tokenizer)

    def answer(self, prompt: str) -> str:
        ids = self.tokenizer(f"{prompt}\nAnswer:", return_tensors="pt")
        weight = self.pack.manifest.weight_token_id
        written = self.model.generate(**ids, max_new_tokens=16, do_sample=False, suppress_tokens=[weight])
        return str(
            self.tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        ).strip()

    def opens(self, prompt: str) -> bool:
        named = self.doubts.asked(prompt)
        if not named:
            return False
        ids = self.tokenizer(f"{prompt}\nAnswer:", return_tensors="pt")
        logits = self.model(**ids).logits[0, -1].detach()
        weight = self.pack.manifest.weight_token_id
        logit = float(logits[weight])
        logits[weight] = -torch.inf
        return self.evidence.alpha(logit, logits.log_softmax(-1), named) >= self.pack.manifest.threshold
