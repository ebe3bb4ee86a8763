"""The weights of a GGUF file as bf16 safetensors, without a model in between.

Names, permutations and offsets of the tensors are transformers' own, for every architecture that its
``load_gguf_checkpoint`` reads; the model they are mapped for has no memory (device ``meta``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from onceedit_vllm.errors import ModelError


class ArrayReader(gguf.GGUFReader):
    """gguf's reader over a plain array instead of a memmap; the file stays mapped, not read.

    The reader takes millions of slices to read a vocabulary, and a slice of a memmap costs several
    times one of an array: 18 s against 5 s for 262144 tokens.
    """

    @property
    def data(self) -> Any:
        """The bytes of the file."""
        return self._bytes

    @data.setter
    def data(self, mapped: Any) -> None:
        self._bytes = mapped.view(np.ndarray)


@contextmanager
def shared_reader() -> Iterator[None]:
    """Have transformers read a file's header once, and make an architecture's table of names once.

    It opens the file anew for the config, the weights and the tokenizer, and makes the table anew for
    every module of the model.
    """
    once = {
        "GGUFReader": functools.cache(ArrayReader),
        "get_tensor_name_map": functools.cache(gguf.get_tensor_name_map),
    }
    kept = {name: getattr(gguf, name) for name in once}
    vars(gguf).update(once)
    try:
        yield
    finally:
        vars(gguf).update(kept)


def write_weights(file: Path, out: Path, title: str) -> None:
    """Write the config, the generation config and the weights of `file` into the folder `out`.

    One tensor at a time is dequantised to float32, and kept as bfloat16.

    Args:
        file: A GGUF file of a causal language model.
        out: A folder, made if it is not there.
        title: What the model is, for people; the config keeps no path.

    Raises:
        ModelError: The file lacks tensors of the model that its header describes.
        ValueError: transformers does not read this architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tensors = load_gguf_checkpoint(
        str(file), return_tensors=True, model_to_load=model, torch_dtype=torch.bfloat16
    )["tensors"]
    missing = model.state_dict().keys() - model.all_tied_weights_keys.keys() - tensors.keys()
    if missing:
        raise ModelError(f"{file}: holds no {', no '.join(sorted(missing)[:5])} (of {len(missing)} missing)")
    model.config._name_or_path = model.name_or_path = title
    model.save_pretrained(out, state_dict=tensors)
