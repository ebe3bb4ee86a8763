"""What slots and steps of a plug-in's runtime promise, on a toy loaded as every pack's model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from onceedit_vllm.config import PlugInConfig
from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.loading import load_runtime
from onceedit_vllm.plugin.runtime import PlugInOutput, PlugInRuntime, PlugInStep
from onceedit_vllm.testing import save_toy_model
from tests.unit.plugin.runtime_checks import check


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_model(tmp_path_factory.mktemp("plug-in"), kind="llama", max_positions=256)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def runtime(folder: Path, model: Any) -> PlugInRuntime:
    return load_runtime(folder, model.config.vocab_size - 1, PlugInConfig(device="cpu", dtype="float32"))


def ask(runtime: PlugInRuntime, *steps: PlugInStep) -> PlugInOutput:
    return runtime.step(steps)


def test_rows_come_in_the_order_of_the_steps(runtime: PlugInRuntime, model: Any) -> None:
    texts = [[5, 6, 7, 8, 9, 10], [11], [12, 13, 14], [15, 16]]
    slots = [runtime.open() for _ in texts]
    order = [2, 0, 3, 1]
    output = ask(runtime, *(PlugInStep(slots[i], 0, texts[i]) for i in order))
    check(output, model, [texts[i] for i in order])


def test_a_slot_reads_on(runtime: PlugInRuntime, model: Any) -> None:
    slot = runtime.open()
    check(ask(runtime, PlugInStep(slot, 0, [5, 6, 7])), model, [[5, 6, 7]])
    check(ask(runtime, PlugInStep(slot, 0, [8])), model, [[5, 6, 7, 8]])
    check(ask(runtime, PlugInStep(slot, 0, [9, 10, 11])), model, [[5, 6, 7, 8, 9, 10, 11]])


def test_rollback(runtime: PlugInRuntime, model: Any) -> None:
    slot = runtime.open()
    ask(runtime, PlugInStep(slot, 0, [5, 6, 7, 8]))
    check(ask(runtime, PlugInStep(slot, 2, [9])), model, [[5, 6, 9]])
    check(ask(runtime, PlugInStep(slot, 3, [10, 11])), model, [[10, 11]])


def test_rows_of_different_lengths_do_not_disturb_each_other(runtime: PlugInRuntime, model: Any) -> None:
    long, short = runtime.open(), runtime.open()
    ask(runtime, PlugInStep(long, 0, list(range(5, 45))))
    output = ask(runtime, PlugInStep(short, 0, [50, 51, 52]), PlugInStep(long, 1, [60, 61]))
    check(output, model, [[50, 51, 52], [*range(5, 44), 60, 61]])


def test_slots_are_used_again_and_remember_nothing(runtime: PlugInRuntime, model: Any) -> None:
    first, other = runtime.open(), runtime.open()
    ask(runtime, PlugInStep(first, 0, [5, 6, 7]), PlugInStep(other, 0, [8, 9]))
    runtime.close(first)
    again = runtime.open()
    assert again != other
    check(ask(runtime, PlugInStep(again, 0, [10])), model, [[10]])
    check(ask(runtime, PlugInStep(other, 0, [11])), model, [[8, 9, 11]])


def test_closing_twice_is_harmless(runtime: PlugInRuntime, model: Any) -> None:
    slot = runtime.open()
    runtime.close(slot)
    runtime.close(slot)
    taken = [runtime.open() for _ in range(3)]
    assert len(set(taken)) == 3


def test_many_slots(runtime: PlugInRuntime, model: Any) -> None:
    texts = [[5 + i, 6 + i] for i in range(40)]
    output = ask(runtime, *(PlugInStep(runtime.open(), 0, text) for text in texts))
    check(output, model, texts)


def test_outputs_may_be_written_into(runtime: PlugInRuntime, model: Any) -> None:
    slot = runtime.open()
    output = ask(runtime, PlugInStep(slot, 0, [5]))
    output.log_probs.zero_()
    output.weight_logits.zero_()
    check(ask(runtime, PlugInStep(slot, 0, [6])), model, [[5, 6]])


def test_log_probs_are_a_distribution_without_weight(runtime: PlugInRuntime, model: Any) -> None:
    output = ask(runtime, PlugInStep(runtime.open(), 0, [5, 6]))
    assert output.log_probs[0, -1] == -torch.inf
    assert output.log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (PlugInStep(99, 0, [5]), "slot 99 is not open"),
        (PlugInStep(0, 3, [5]), "holds 2 tokens and cannot roll back 3"),
        (PlugInStep(0, -1, [5]), "cannot roll back -1"),
        (PlugInStep(0, 0, []), "at least one token"),
        (PlugInStep(0, 0, [10**6]), "outside the plug-in's vocabulary"),
        (PlugInStep(0, 0, [-1]), "outside the plug-in's vocabulary"),
        (PlugInStep(0, 0, [5] * 10_000), "more than the plug-in's context"),
    ],
)
def test_errors_harm_no_other_slot(
    runtime: PlugInRuntime, model: Any, step: PlugInStep, message: str
) -> None:
    slot = runtime.open()
    assert slot == 0
    ask(runtime, PlugInStep(slot, 0, [5, 6]))
    with pytest.raises(ModelError, match=message):
        runtime.step([step])
    check(ask(runtime, PlugInStep(slot, 0, [7])), model, [[5, 6, 7]])


def test_one_slot_twice_in_a_step(runtime: PlugInRuntime, model: Any) -> None:
    slot = runtime.open()
    with pytest.raises(ModelError, match="same plug-in slot"):
        runtime.step([PlugInStep(slot, 0, [5]), PlugInStep(slot, 0, [6])])
