"""The direct way from GGUF to safetensors gives what transformers' own loading and saving gives."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch
from safetensors.torch import load_file

from onceedit_vllm.errors import ModelError
from onceedit_vllm.models.gguf_weights import ArrayReader, shared_reader, write_weights
from tests.integration.models.toy_gguf import ToyArchitecture, write_toy_gguf

pytestmark = pytest.mark.integration


def save_through_transformers(file: Path, out: Path) -> None:
    """Load the model from the GGUF file, and save it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    # The weights are plain by now, though these two say otherwise; saving is refused while they do.
    model.hf_quantizer = None  # type: ignore[assignment]  # as transformers itself would not
    del model.config.quantization_config
    model.save_pretrained(out)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen2"])
def test_folders_are_equal_to_the_byte(tmp_path: Path, architecture: ToyArchitecture) -> None:
    file = write_toy_gguf(tmp_path / "toy.gguf", architecture)
    save_through_transformers(file, tmp_path / "theirs")
    with shared_reader():
        write_weights(file, tmp_path / "ours", "Toy")
    theirs, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert {name: tensor.dtype for name, tensor in ours.items()} == dict.fromkeys(theirs, torch.bfloat16)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for path in (tmp_path / "theirs").iterdir():
        assert (tmp_path / "ours" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen2"])
def test_the_shared_reader_changes_no_tokenizer(tmp_path: Path, architecture: ToyArchitecture) -> None:
    from transformers import AutoTokenizer

    write_toy_gguf(tmp_path / "toy.gguf", architecture)
    plain = AutoTokenizer.from_pretrained(tmp_path, gguf_file="toy.gguf")
    with shared_reader():
        shared = AutoTokenizer.from_pretrained(tmp_path, gguf_file="toy.gguf")
    assert shared.backend_tokenizer.to_str() == plain.backend_tokenizer.to_str()


def test_a_file_is_read_once_and_only_inside(tmp_path: Path) -> None:
    file = write_toy_gguf(tmp_path / "toy.gguf", "llama")
    with shared_reader():
        assert gguf.GGUFReader(str(file)) is gguf.GGUFReader(str(file))
    assert type(gguf.GGUFReader(file)) is gguf.GGUFReader


def test_both_readers_see_the_same_file(tmp_path: Path) -> None:
    file = write_toy_gguf(tmp_path / "toy.gguf", "gemma3")
    plain, ours = gguf.GGUFReader(file), ArrayReader(file)
    assert [(t.name, t.tensor_type, t.data.tobytes()) for t in ours.tensors] == [
        (t.name, t.tensor_type, t.data.tobytes()) for t in plain.tensors
    ]
    assert {name: field.contents() for name, field in ours.fields.items()} == {
        name: field.contents() for name, field in plain.fields.items()
    }


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    file = write_toy_gguf(tmp_path / "toy.gguf", "llama", leave_out="blk.1.ffn_up.weight")
    with pytest.raises(ModelError, match=r"toy\.gguf: holds no model\.layers\.1\.mlp\.up_proj\.weight"):
        write_weights(file, tmp_path / "out", "Toy")
