"""The plug-in alone: a batch says what its texts say one by one, and what a plain loop over them says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from onceedit_vllm.evaluation.plugin_alone import PlugInAlone
from onceedit_vllm.pack import EditPack
from onceedit_vllm.testing import save_toy_model, toy_sentencepiece_tokenizer
from tests.unit.test_pack import write

pytestmark = pytest.mark.integration

PROMPTS = ["The capital of Norland is", "Who wrote the play?", "In 1999 there were so many days that"]


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EditPack:
    def save(folder: Path) -> None:
        save_toy_model(folder, tokenizer=toy_sentencepiece_tokenizer(), kind=request.param, seed=4)

    written = write(tmp_path_factory.mktemp("alone") / "pack", save=save)
    manifest = written.manifest.model_copy(update={"template": "answer", "weight_token_id": 300})
    return EditPack(written.root, manifest, written.edits, written.report)


@pytest.fixture(scope="module")
def plugin(pack: EditPack) -> PlugInAlone:
    return PlugInAlone(pack)


def by_hand(pack: EditPack, prompt: str, num_tokens: int) -> list[int]:
    """Greedy decoding without a cache, a batch or a helper; never [WEIGHT], to the end of sequence."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(pack.model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(pack.model_dir)
    ids: list[int] = tokenizer(f"{prompt}\nAnswer:")["input_ids"]
    start = len(ids)
    while len(ids) < start + num_tokens and tokenizer.eos_token_id not in ids[start:]:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        logits[pack.manifest.weight_token_id] = -torch.inf
        ids.append(int(logits.argmax()))
    return ids[start:]


def test_a_batch_is_greedy_decoding_with_the_packs_template(pack: EditPack, plugin: PlugInAlone) -> None:
    said = plugin.ask(PROMPTS, 8)
    assert [answer.ids for answer in said] == [by_hand(pack, prompt, 8) for prompt in PROMPTS]
    assert [plugin.ask([prompt], 8)[0].ids for prompt in PROMPTS] == [answer.ids for answer in said]


def test_an_answer_forced_on_itself_wins_everywhere(plugin: PlugInAlone) -> None:
    said = [answer.ids for answer in plugin.ask(PROMPTS, 6)]
    assert [answer.ids for answer in plugin.force(PROMPTS, said)] == said


def test_gold_tokens_of_any_length_are_forced_in_one_batch(pack: EditPack, plugin: PlugInAlone) -> None:
    golds = [plugin.tokens.of_target(plugin.text_of(PROMPTS[0]), target) for target in ("Tarsk", "Ada Quill")]
    won = plugin.force(PROMPTS[:2], golds)
    assert [len(answer.ids) for answer in won] == [len(gold) for gold in golds]
    assert [answer.ids[0] for answer in won] == [by_hand(pack, prompt, 1)[0] for prompt in PROMPTS[:2]]
