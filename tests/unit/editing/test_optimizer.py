"""AdamW on float32 masters, against torch's own on a float32 model."""

from __future__ import annotations

import pytest
import torch
from onceedit_vllm.editing.optimizer import MasterAdamW
from torch import Tensor, nn


def make_model(dtype: torch.dtype) -> nn.Linear:
    model = nn.Linear(6, 4, bias=True)
    with torch.no_grad():
        for seed, weight in enumerate(model.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
            weight.copy_(weight.bfloat16())  # the same start in both dtypes
    return model.to(dtype)


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(4, 6, generator=generator).bfloat16(), torch.randn(4, generator=generator).bfloat16()]


def give(model: nn.Module, step: int) -> None:
    for weight, gradient in zip(model.parameters(), gradients(step), strict=True):
        weight.grad = gradient.to(weight.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_masters_go_where_torchs_adamw_goes(dtype: torch.dtype) -> None:
    model, reference = make_model(dtype), make_model(torch.float32)
    ours = MasterAdamW(model, lr=1e-2)
    theirs = torch.optim.AdamW(reference.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(8):
        give(model, step)
        give(reference, step)
        ours.step()
        theirs.step()
    for master, weight, expected in zip(
        ours.masters, model.parameters(), reference.parameters(), strict=True
    ):
        torch.testing.assert_close(master, expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(weight, master.to(dtype))


def test_steps_too_small_for_bfloat16_add_up() -> None:
    """The reason of the masters: with torch's own AdamW such a weight never moves."""
    ours, theirs = make_model(torch.bfloat16), make_model(torch.bfloat16)
    before = ours.weight.detach().clone()
    optimizer = MasterAdamW(ours, lr=1e-5)
    plain = torch.optim.AdamW(theirs.parameters(), lr=1e-5, weight_decay=0.0)
    large = before.abs() > 0.5
    for _ in range(1000):
        for model in (ours, theirs):
            for weight in model.parameters():
                weight.grad = torch.ones_like(weight)
        optimizer.step()
        plain.step()
    moved = (before - ours.weight)[large].float()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-2), atol=8e-3, rtol=0)
    assert torch.equal(theirs.weight[large], before[large])


def test_nothing_decays() -> None:
    model = make_model(torch.bfloat16)
    before = model.weight.detach().clone()
    optimizer = MasterAdamW(model, lr=0.1)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert torch.equal(model.weight, before)


def test_frozen_parameters_stay_out() -> None:
    model = make_model(torch.bfloat16)
    model.bias.requires_grad_(False)
    optimizer = MasterAdamW(model, lr=0.1)
    assert optimizer.names == ["weight"]
    before = model.bias.detach().clone()
    give(model, 0)
    optimizer.step()
    assert torch.equal(model.bias, before)


def test_float32_weights_are_their_own_masters() -> None:
    model = make_model(torch.float32)
    assert all(m is w for m, w in zip(MasterAdamW(model, lr=0.1).masters, model.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forgetting_gradients_forgets_the_models_too(dtype: torch.dtype) -> None:
    model = make_model(dtype)
    optimizer = MasterAdamW(model, lr=0.1)
    give(model, 0)
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in [*model.parameters(), *optimizer.masters])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_goes_on_as_if_never_interrupted(dtype: torch.dtype) -> None:
    whole, first, second = make_model(dtype), make_model(dtype), make_model(dtype)
    uninterrupted, before, after = (MasterAdamW(model, lr=1e-2) for model in (whole, first, second))
    for step in range(6):
        give(whole, step)
        uninterrupted.step()
    for step in range(3):
        give(first, step)
        before.step()
    saved = {name: tensor.clone() for name, tensor in before.tensors().items()}
    after.load_tensors(saved)
    for step in range(3, 6):
        give(second, step)
        after.step()
    for found, expected in zip(after.masters, uninterrupted.masters, strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(second.weight, whole.weight)


def test_a_fresh_optimizer_has_weights_to_save_and_no_moments() -> None:
    assert set(MasterAdamW(make_model(torch.bfloat16), lr=0.1).tensors()) == {"weight.weight", "weight.bias"}
