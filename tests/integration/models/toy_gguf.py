"""Small GGUF files as llama.cpp writes them: quantised blocks, its names, its order of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import gguf
import numpy as np

ToyArchitecture = Literal["llama", "gemma3", "qwen2"]

VOCAB, WIDTH, INNER, LAYERS, HEADS, KV_HEADS, HEAD = 288, 64, 128, 2, 4, 2, 32


def write_toy_gguf(file: Path, architecture: ToyArchitecture, *, leave_out: str = "") -> Path:
    """Write random weights of one architecture: Q8_0 and Q5_0 blocks, norms and biases in float32.

    Args:
        file: The file to write.
        architecture: What the file says it is.
        leave_out: Name of a tensor that the file lacks.
    """
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("Toy")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    _add_tokenizer(writer, "llama" if architecture == "gemma3" else "gpt2")
    random = np.random.default_rng(0)
    for name, shape in _shapes(architecture).items():
        if name != leave_out:
            _add_tensor(writer, name, random.standard_normal(shape, dtype=np.float32) * 0.1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: gguf.GGUFWriter, kind: Literal["llama", "gpt2"]) -> None:
    """256 one-byte tokens and a few words, two of them special."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = ["".join(pair) for pair in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)]
    tokens = ["<unk>", "<s>", "</s>", *letters, *words]
    tokens += [f"<unused{index}>" for index in range(VOCAB - len(tokens))]
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (VOCAB - 3))
    if kind == "llama":
        writer.add_token_scores([-float(index) for index in range(VOCAB)])
    else:
        writer.add_token_merges([f"{word[0]} {word[1]}" for word in words])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)


def _shapes(architecture: ToyArchitecture) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors, by llama.cpp's names; all but qwen2 have tied embeddings."""
    head = WIDTH // HEADS if architecture != "gemma3" else HEAD
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,)}
    layer: dict[str, tuple[int, ...]] = {
        "attn_q.weight": (HEADS * head, WIDTH),
        "attn_k.weight": (KV_HEADS * head, WIDTH),
        "attn_v.weight": (KV_HEADS * head, WIDTH),
        "attn_output.weight": (WIDTH, HEADS * head),
        "ffn_gate.weight": (INNER, WIDTH),
        "ffn_up.weight": (INNER, WIDTH),
        "ffn_down.weight": (WIDTH, INNER),
        "attn_norm.weight": (WIDTH,),
        "ffn_norm.weight": (WIDTH,),
    }
    if architecture == "gemma3":
        layer |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
        layer |= {"post_attention_norm.weight": (WIDTH,), "post_ffw_norm.weight": (WIDTH,)}
    if architecture == "qwen2":
        shapes["output.weight"] = (VOCAB, WIDTH)
        layer |= {f"attn_{part}.bias": layer[f"attn_{part}.weight"][:1] for part in "qkv"}
    for block in range(LAYERS):
        shapes |= {f"blk.{block}.{name}": shape for name, shape in layer.items()}
    return shapes


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray) -> None:
    if values.ndim == 1:
        writer.add_tensor(name, values)
        return
    kind = gguf.GGMLQuantizationType.Q5_0 if "ffn" in name else gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
