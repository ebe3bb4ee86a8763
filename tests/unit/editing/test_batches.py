"""Tokens, seams, padding and the joint objective."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from onceedit_vllm.editing.augment import Example
from onceedit_vllm.editing.batches import IGNORED, collate, encode_example, join, make_batches
from onceedit_vllm.editing.objective import joint_loss, run_forward
from onceedit_vllm.editing.plugin_model import EditablePlugIn, load_plugin, load_tokenizer
from onceedit_vllm.editing.probe import read_examples
from onceedit_vllm.testing import save_toy_model, toy_sentencepiece_tokenizer


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> EditablePlugIn:
    folder = save_toy_model(tmp_path_factory.mktemp("toy") / "llama")
    return load_plugin(folder, load_tokenizer(folder))


EXAMPLES = [
    Example("The capital of Lumora is", "Port Selwyn", 1.0, 0),
    Example("Hello", None, 0.0, -1),
    Example("user\nWho founded it?\nassistant\n", "Tomas", 1.0, 1),
]


def test_the_answer_is_what_follows_the_prompt(plugin: EditablePlugIn) -> None:
    tokenizer = plugin.tokenizer
    encoded = encode_example(EXAMPLES[0], tokenizer)
    assert tokenizer.decode(encoded.ids[: encoded.prompt_length]) == "The capital of Lumora is"
    assert tokenizer.decode(encoded.answer[:-1]) == " Port Selwyn"
    assert encoded.answer[-1] == tokenizer.eos_token_id
    assert encoded.ids[encoded.prompt_length :] == encoded.answer[:-1]


def test_a_prompt_ending_in_a_line_break_gets_no_space() -> None:
    assert join("assistant\n", "Tomas") == "assistant\nTomas"
    assert join("is", " Tomas ") == "is Tomas"


def test_a_token_merged_across_the_seam_belongs_to_the_answer(plugin: EditablePlugIn) -> None:
    class Merging:
        eos_token_id = 9

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [1, 2, 3] if text == "ab c" else [1, 4]}

    merging: Any = Merging()
    encoded = encode_example(Example("ab", "c", 1.0, 0), merging)
    assert encoded.ids == [1, 2, 3]
    assert encoded.prompt_length == 1
    assert encoded.answer == [2, 3, 9]


def test_sentencepiece_keeps_its_first_token() -> None:
    tokenizer = toy_sentencepiece_tokenizer()
    encoded = encode_example(EXAMPLES[0], tokenizer)
    assert encoded.ids[0] == tokenizer.bos_token_id
    assert str(tokenizer.decode(encoded.answer, skip_special_tokens=True)).strip() == "Port Selwyn"


def test_padded_batch_equals_single_examples(plugin: EditablePlugIn) -> None:
    """The batched losses are those of the slow way: one unpadded text at a time, all logits."""
    encoded = [encode_example(example, plugin.tokenizer) for example in EXAMPLES]
    batch = collate(encoded, plugin.tokenizer.pad_token_id or 0)
    losses = joint_loss(run_forward(plugin, batch), batch, 0.8)
    answer_losses, gate_losses = [], []
    for example in encoded:
        logits = plugin.model(input_ids=torch.tensor([example.ids])).logits[0].detach().float()
        at = example.prompt_length - 1
        alpha = float(torch.sigmoid(logits[at, plugin.weight_token_id]))
        gate_losses.append(-math.log(alpha if example.label else 1 - alpha))
        logits[:, plugin.weight_token_id] = -torch.inf
        if example.answer:
            rows = logits[at : at + len(example.answer)].log_softmax(-1)
            answer_losses.append(-sum(float(r[t]) for r, t in zip(rows, example.answer, strict=True)))
            answer_losses[-1] /= len(example.answer)
    assert losses.generation.item() == pytest.approx(sum(answer_losses) / 2, abs=1e-4)
    assert losses.gate.item() == pytest.approx(sum(gate_losses) / 3, abs=1e-4)
    assert losses.total.item() == pytest.approx(losses.generation.item() + 0.8 * losses.gate.item(), abs=1e-5)


def test_a_batch_without_answers_has_a_finite_loss(plugin: EditablePlugIn) -> None:
    batch = collate([encode_example(EXAMPLES[1], plugin.tokenizer)], 0)
    losses = joint_loss(run_forward(plugin, batch), batch, 0.8)
    assert losses.generation.item() == 0.0
    assert (batch.labels == IGNORED).all()
    assert torch.isfinite(losses.total)


def test_reading_keeps_the_order_and_agrees_with_generation(plugin: EditablePlugIn) -> None:
    model = plugin.model.eval()
    prompt = plugin.tokenizer("Hello", return_tensors="pt")
    written = model.generate(
        **prompt, max_new_tokens=3, do_sample=False, suppress_tokens=[plugin.weight_token_id], pad_token_id=0
    )[0, prompt["input_ids"].shape[1] :]
    readings = read_examples(plugin, EXAMPLES, batch_size=2)
    alone = [read_examples(plugin, [e])[0] for e in EXAMPLES]
    for reading, single in zip(readings, alone, strict=True):
        assert reading.alpha == pytest.approx(single.alpha, abs=1e-5)
        assert reading.probability == pytest.approx(single.probability, abs=1e-5)
    assert readings[1].probability == 1.0
    wrong = Example("Hello", f"{plugin.tokenizer.decode(written[:1])}zzz", 1.0, 0)
    assert not read_examples(plugin, [wrong])[0].greedy


def test_an_answer_longer_than_a_text_may_be_keeps_the_gates_place(plugin: EditablePlugIn) -> None:
    short = encode_example(EXAMPLES[0], plugin.tokenizer)
    encoded = encode_example(EXAMPLES[0]._replace(target="Tarsk " * 300), plugin.tokenizer)
    assert encoded.prompt_length == 1
    assert len(encoded.ids) > 256
    batch = collate([short, encoded], 0)
    assert batch.input_ids.flatten()[batch.places[batch.gate]].tolist() == 2 * [
        short.ids[short.prompt_length - 1]
    ]


def test_batches_hold_every_example_once(plugin: EditablePlugIn) -> None:
    encoded = [encode_example(Example("x" * n, None, 0.0, -1), plugin.tokenizer) for n in range(1, 100)]
    batches = make_batches(encoded, 8, random.Random(0))
    assert sorted(id(e) for batch in batches for e in batch) == sorted(id(e) for e in encoded)
    assert max(len(batch) for batch in batches) == 8


def test_weight_token_gets_a_row_and_ties_stay(tmp_path: Path) -> None:
    folder = save_toy_model(tmp_path / "tied", tied=True)
    tied = load_plugin(folder, load_tokenizer(folder))
    head, inputs = tied.model.get_output_embeddings().weight, tied.model.get_input_embeddings().weight
    assert head.data_ptr() == inputs.data_ptr()
    assert inputs.shape[0] > tied.weight_token_id
    assert tied.tokenizer.convert_ids_to_tokens(tied.weight_token_id) == "[WEIGHT]"


def test_batches_waste_little_on_padding(plugin: EditablePlugIn) -> None:
    encoded = [encode_example(Example("x " * n, None, 0.0, -1), plugin.tokenizer) for n in range(1, 100)]
    batches = make_batches(encoded, 8, random.Random(0))
    padded = sum(len(batch) * max(len(e.ids) for e in batch) for batch in batches)
    assert padded <= 1.1 * sum(len(e.ids) for e in encoded)


def test_the_weight_row_stands_in_for_the_output_layers(tmp_path: Path) -> None:
    """Trained apart, served inside: the saved model gives the logit that training saw, and only it moves."""
    from transformers import AutoModelForCausalLM

    folder = save_toy_model(tmp_path / "toy", tied=True)
    plugin = load_plugin(folder, load_tokenizer(folder))
    batch = collate([encode_example(EXAMPLES[1], plugin.tokenizer)], 0)
    before = run_forward(plugin, batch)
    with torch.no_grad():
        plugin.weight_row.add_(1.0)
    after = run_forward(plugin, batch)
    assert not torch.allclose(before.gate_logits, after.gate_logits)
    assert torch.equal(before.log_probs, after.log_probs)
    after.gate_logits.sum().backward()
    assert plugin.weight_row.grad is not None
    assert plugin.model.get_input_embeddings().weight.grad is None
    plugin.save(tmp_path / "saved")
    served = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    logits = served(input_ids=batch.input_ids).logits[0, -1]
    served_logit = float(logits[plugin.weight_token_id].detach())
    assert served_logit == pytest.approx(float(after.gate_logits.detach()), rel=1e-4)


@pytest.mark.parametrize(("share", "num_layers"), [(1.0, 2), (0.5, 1), (0.4, 1)])
def test_the_topmost_layers_are_trained(tmp_path: Path, share: float, num_layers: int) -> None:
    folder = save_toy_model(tmp_path / "toy")
    plugin = load_plugin(folder, load_tokenizer(folder), trained_share=share)
    layers = {name.split(".")[2] for name in plugin.trained() if ".layers." in name}
    assert layers == {str(number) for number in range(2 - num_layers, 2)}
    assert "[WEIGHT]" in plugin.trained()
