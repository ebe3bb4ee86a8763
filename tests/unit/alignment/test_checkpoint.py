from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from onceedit_vllm.alignment.checkpoint import count_parameters, map_tensor, read_config, tensor_names
from onceedit_vllm.errors import AlignmentError
from onceedit_vllm.testing import ToyKind, save_toy_model


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3", "qwen2"])
def test_the_parameters_are_the_models_own(tmp_path: Path, kind: ToyKind) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_toy_model(tmp_path / kind, kind=kind)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert count_parameters(folder) == sum(p.numel() for p in model.parameters())


def sharded(folder: Path) -> Path:
    """Ten parameters of text in two files, beside a vision tower."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    shards = {
        "one.safetensors": {"model.a": torch.zeros(2, 3), "vision_tower.b": torch.zeros(50)},
        "two.safetensors": {"model.c": torch.zeros(4, dtype=torch.bfloat16), "model.ids": torch.arange(7)},
    }
    for file, tensors in shards.items():
        save_file(tensors, folder / file)
    index = {name: file for file, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def test_parameters_of_shards(tmp_path: Path) -> None:
    assert count_parameters(sharded(tmp_path / "m")) == 10


@pytest.mark.parametrize("damage", ["no config", "packed", "no weights", "shard missing", "cut"])
def test_what_cannot_be_counted_is_not_guessed(tmp_path: Path, damage: str) -> None:
    folder = sharded(tmp_path / "m")
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "packed":
        (folder / "config.json").write_text('{"quantization_config": {"bits": 4}}')
    elif damage == "no weights":
        for file in folder.glob("*.safetensors*"):
            file.unlink()
    elif damage == "shard missing":
        (folder / "two.safetensors").unlink()
    else:
        file = folder / "two.safetensors"
        file.write_bytes(file.read_bytes()[:40])
    assert count_parameters(folder) is None


def test_a_mapped_tensor_is_the_stored_one(tmp_path: Path) -> None:
    table = torch.randn(8, 4).to(torch.bfloat16)
    save_file({"t": table}, tmp_path / "model.safetensors")
    assert tensor_names(tmp_path) == [(tmp_path / "model.safetensors", "t")]
    assert torch.equal(map_tensor(tmp_path / "model.safetensors", "t"), table)


def test_the_text_models_config_goes_first(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 1, "a": 2, "text_config": {"vocab_size": 8}}')
    assert read_config(tmp_path)["vocab_size"] == 8
    assert read_config(tmp_path)["a"] == 2
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(AlignmentError, match="not a model folder"):
        read_config(tmp_path)
