from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from onceedit_vllm.alignment.checkpoint import read_config
from onceedit_vllm.alignment.embeddings import embeddings_shape, load_embeddings, tensor_fingerprint
from onceedit_vllm.errors import AlignmentError
from onceedit_vllm.testing import ToyKind, save_toy_model

TABLE = torch.randn(8, 4)


def folder_with(path: Path, tensors: dict[str, torch.Tensor], **config: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"vocab_size": 8, **config}))
    save_file(tensors, path / "model.safetensors")
    return path


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3", "qwen2"])
def test_the_table_is_the_models_own(tmp_path: Path, kind: ToyKind, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_toy_model(tmp_path / kind, kind=kind)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    expected = model.get_input_embeddings().weight.detach()
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)  # not needed
    assert torch.equal(load_embeddings(folder), expected)


def test_the_table_of_a_sharded_multimodal_model(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "m", {}, text_config={"vocab_size": 8, "hidden_size": 4})
    (folder / "model.safetensors").unlink()
    shards = {
        "one.safetensors": {"vision_tower.embeddings.patch_embedding.weight": torch.zeros(9, 9)},
        "two.safetensors": {
            "language_model.model.embed_tokens.weight": TABLE,
            "vision_tower.position_embedding.weight": torch.zeros(99, 4),
        },
    }
    for file, tensors in shards.items():
        save_file(tensors, folder / file)
    index = {name: file for file, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert torch.equal(load_embeddings(folder), TABLE)
    assert read_config(folder)["vocab_size"] == 8


@pytest.mark.parametrize(
    "extra", ["model.layers.61.embed_tokens", "mtp.embed_tokens", "model.mtp_layers.0.embed_tokens"]
)
def test_tables_of_extra_prediction_layers_are_not_the_models(tmp_path: Path, extra: str) -> None:
    """No model to load in this folder: it must be found by its name."""
    tensors = {f"{extra}.weight": torch.zeros(8, 4), "model.embed_tokens.weight": TABLE}
    folder = folder_with(tmp_path / "m", tensors)
    assert torch.equal(load_embeddings(folder), TABLE)
    assert embeddings_shape(folder) == (8, 4)


def test_the_shape_without_safetensors_is_the_configs(tmp_path: Path) -> None:
    for number, width in enumerate(("hidden_size", "n_embd", "d_model")):
        folder = folder_with(tmp_path / str(number), {}, **{width: 4})
        (folder / "model.safetensors").unlink()
        assert embeddings_shape(folder) == (8, 4)
    silent = folder_with(tmp_path / "silent", {"someone.elses.table": TABLE})
    with pytest.raises(AlignmentError, match="no vocab_size or none of word_embed_proj_dim, hidden_size"):
        embeddings_shape(silent)


def test_unknown_names_go_through_the_model(tmp_path: Path) -> None:
    folder = save_toy_model(tmp_path / "m")
    expected = load_embeddings(folder)
    weights = {"someone.elses.table": expected.clone()}
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    save_file(weights, folder / "extra.safetensors")
    assert torch.equal(load_embeddings(folder), expected)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match="not a model folder"):
        load_embeddings(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    with pytest.raises(AlignmentError, match="cannot be loaded as a causal LM"):
        load_embeddings(tmp_path)
    integers = folder_with(tmp_path / "int", {"wte.weight": torch.ones(8, 4, dtype=torch.int8)})
    with pytest.raises(AlignmentError, match=r"torch\.int8"):
        load_embeddings(integers)
    cut = folder_with(tmp_path / "cut", {"wte.weight": TABLE})
    file = cut / "model.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(AlignmentError, match="fetch the model again"):
        load_embeddings(cut)


def test_fingerprints_tell_values_shapes_and_dtypes_apart() -> None:
    zeros = torch.zeros(2, 8)
    others = [zeros.reshape(4, 4), zeros.to(torch.bfloat16), zeros + 1]
    prints = {tensor_fingerprint(t) for t in [zeros, *others]}
    assert len(prints) == 4
    assert tensor_fingerprint(zeros.clone()) in prints
    assert tensor_fingerprint(TABLE.T) == tensor_fingerprint(TABLE.T.contiguous())
