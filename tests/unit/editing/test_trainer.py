"""The loop: what a step does, the schedule, and when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onceedit_vllm.config import EditingConfig
from onceedit_vllm.editing.augment import Augmenter
from onceedit_vllm.editing.checkpoint import Checkpoint
from onceedit_vllm.editing.judge import Judge
from onceedit_vllm.editing.plugin_model import EditablePlugIn, load_plugin, load_tokenizer
from onceedit_vllm.editing.progress import TrainingProgress
from onceedit_vllm.editing.trainer import EditingLoop
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evidence import first_tokens
from onceedit_vllm.testing import save_toy_model

EDITS = [EditRecord(id="a", prompt="The capital of Lumora is", target="Port", subject="Lumora")]
QUICK = EditingConfig(
    learning_rate=1e-3, epochs=2, copies_per_round=8, min_copies=8, unrelated_per_round=4, batch_size=8
)


@pytest.fixture
def plugin(tmp_path: Path) -> EditablePlugIn:
    torch.manual_seed(0)
    folder = save_toy_model(tmp_path / "toy", tied=True)
    return load_plugin(folder, load_tokenizer(folder))


class Rates(TrainingProgress):
    """Remembers the learning rate of each step."""

    def __init__(self) -> None:
        super().__init__(1, visible=False)
        self.loop: EditingLoop | None = None
        self.rates: list[float] = []

    def step(self, generation_loss: float, gate_loss: float, num_learnt: int) -> None:
        assert self.loop is not None
        self.rates.append(self.loop._optimizer.param_groups[0]["lr"])


def make_loop(plugin: EditablePlugIn, config: EditingConfig, tmp_path: Path) -> tuple[EditingLoop, Rates]:
    augmenter, rates = Augmenter(EDITS, None, config), Rates()
    checkpoint = Checkpoint(tmp_path / "pack", "fingerprint")
    rates.loop = EditingLoop(plugin, augmenter, Judge(augmenter, config), config, checkpoint, rates)
    return rates.loop, rates


def test_steps_are_plain_adamw(plugin: EditablePlugIn, tmp_path: Path) -> None:
    """One step of the loop equals a step written out: same batch, clipped gradient, first rate."""
    from onceedit_vllm.editing.objective import joint_loss, run_forward
    from onceedit_vllm.editing.plugin_model import to_tensors

    loop, rates = make_loop(plugin, QUICK, tmp_path)
    batch = loop._batches(0)[0]
    before = {name: weight.detach().clone() for name, weight in plugin.trained().items()}
    tensors = to_tensors(batch, plugin)
    plugin.model.train()
    joint_loss(run_forward(plugin, tensors), tensors, QUICK.weight_lambda).total.backward()
    gradients = {name: weight.grad for name, weight in plugin.trained().items() if weight.grad is not None}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    clipped = {name: g.clone() * min(1.0, 1.0 / (float(norm) + 1e-6)) for name, g in gradients.items()}
    plugin.model.zero_grad()
    plugin.weight_row.grad = None
    loop._step(batch)
    for name, gradient in clipped.items():
        # AdamW's first step moves by the rate, against the gradient's sign; eps is felt near zero.
        wanted = before[name] - rates.rates[0] * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose(plugin.trained()[name], wanted, atol=2e-6)


def test_the_rate_rises_and_falls(plugin: EditablePlugIn, tmp_path: Path) -> None:
    loop, rates = make_loop(plugin, QUICK.model_copy(update={"epochs": 12}), tmp_path)
    loop.run(resume=False)
    peak = rates.rates.index(max(rates.rates))
    assert rates.rates[: peak + 1] == sorted(rates.rates[: peak + 1])
    assert rates.rates[peak:] == sorted(rates.rates[peak:], reverse=True)
    assert max(rates.rates) <= QUICK.learning_rate


def test_training_ends_when_all_is_learnt(plugin: EditablePlugIn, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"epochs": 60, "learning_rate": 4e-3})
    loop, _ = make_loop(plugin, config, tmp_path)
    verdict = loop.run(resume=False)
    assert verdict.is_done == loop.course.stopped_early
    assert loop.course.learnt == verdict.learnt
    assert loop.course.rounds <= 60


def test_what_names_an_edit_is_given_the_beginning_of_its_answer(
    plugin: EditablePlugIn, tmp_path: Path
) -> None:
    loop, _ = make_loop(plugin, QUICK, tmp_path)
    encoded = [example for batch in loop._batches(0) for example in batch]
    wanted = first_tokens("Port", plugin.tokenizer)
    assert {example.beginning for example in encoded} == {wanted, ()}
    for example in encoded:
        text = str(plugin.tokenizer.decode(example.ids[: example.prompt_length]))
        assert (example.beginning == wanted) == ("lumora" in text.lower())
