"""Next-token distributions of two real models that write and read the same texts."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track
from torch import Tensor

# Tokens that the LLM writes behind each prompt; each is a step.
STEPS_PER_PROMPT = 12
_BATCH = 16


class Steps(NamedTuple):
    """What both models said at the same places.

    Attributes:
        plugin_log_probs: (n, V_s) float32.
        llm_logits: (n, V_l) float32.
    """

    plugin_log_probs: Tensor
    llm_logits: Tensor


def prompts() -> list[str]:
    """The project's own unrelated sentences, and the facts and questions of the examples."""
    lines = (
        files("onceedit_vllm.editing").joinpath("unrelated.jsonl").read_text(encoding="utf-8").splitlines()
    )
    unrelated = [json.loads(line)["prompt"] for line in lines]
    data = Path(__file__).parents[2] / "examples" / "data"
    facts = [json.loads(line) for line in (data / "facts.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [text for fact in facts for text in (fact["prompt"], *fact.get("rephrases", []))]
    return unrelated + asked + (data / "unrelated.txt").read_text(encoding="utf-8").split("\n")[:-1]


def record(plugin: Path, llm: Path, count: int) -> Steps:
    """Let the LLM continue prompts greedily, and the plug-in read along.

    Args:
        plugin: Folder of the plug-in.
        llm: Folder of the LLM.
        count: Number of steps wanted.
    """
    texts, logits = _write(llm, count)
    return Steps(_read(plugin, texts), logits)


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(folder), model.eval()


@torch.inference_mode()
def _write(folder: Path, count: int) -> tuple[list[str], Tensor]:
    """The text before each step, and the LLM's logits there."""
    tokenizer, model = _load(folder)
    tokenizer.padding_side = "left"
    chosen = prompts()[: -(-count // STEPS_PER_PROMPT)]
    texts: list[str] = []
    logits = torch.empty(len(chosen) * STEPS_PER_PROMPT, model.config.vocab_size)
    for start in track(range(0, len(chosen), _BATCH), description="The LLM writes"):
        batch = chosen[start : start + _BATCH]
        inputs = tokenizer(batch, return_tensors="pt", padding=True)
        out = model.generate(
            **inputs,
            max_new_tokens=STEPS_PER_PROMPT,
            min_new_tokens=STEPS_PER_PROMPT,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        written = out.sequences[:, inputs.input_ids.shape[1] :]
        for place, (prompt, ids) in enumerate(zip(batch, written, strict=True)):
            for step in range(STEPS_PER_PROMPT):
                logits[len(texts)] = out.logits[step][place]
                texts.append(prompt + tokenizer.decode(ids[:step]))
    return texts[:count], logits[:count]


@torch.inference_mode()
def _read(folder: Path, texts: list[str]) -> Tensor:
    """The plug-in's log-probabilities behind each text."""
    tokenizer, model = _load(folder)
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    log_probs: Any = [None] * len(texts)
    for start in track(range(0, len(order), _BATCH), description="The plug-in reads"):
        batch = order[start : start + _BATCH]
        inputs = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True)
        last = inputs.attention_mask.sum(dim=1) - 1
        states = model.model(**inputs).last_hidden_state[torch.arange(len(batch)), last]
        for i, row in zip(batch, model.lm_head(states).float().log_softmax(dim=1), strict=True):
            log_probs[i] = row
    return torch.stack(log_probs)
