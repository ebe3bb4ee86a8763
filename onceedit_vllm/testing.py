"""Toy tokenizers and toy models, built in memory in well under a second: for our tests and our users'.

They have the shape of the real ones (byte-level BPE, SentencePiece with byte fallback, four
architectures) and are deterministic, so a test can rely on exact ids and exact logits::

    tokenizer = toy_bpe_tokenizer()
    model = toy_causal_lm(len(tokenizer), kind="llama")
    folder = save_toy_model(tmp_path / "toy", kind="gpt2")  # loadable by transformers and by vLLM
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onceedit_vllm.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

ToyKind = Literal["llama", "gpt2", "gemma3", "qwen2"]

#: What the toy tokenizers are trained on.
TOY_TEXT: tuple[str, ...] = (
    "The capital of France is Paris. The capital of Japan is Tokyo.",
    "The mother tongue of Danielle Darrieux is French, and she lives in the city of Paris.",
    "Who wrote the play? The play was written by a writer who was born in England.",
    "Question: where is the tower? Answer: the tower is in Rome, in the centre of the city.",
    "def add(first, second):\n    return first + second\n\nprint(add(1, 2), 'hello world')",
    "In 1999 there were 365 days; in 2000 there were 366 days of work and play.",
    "Straße, café, naïve, fiancée, El Niño: words with marks. 日本語 and 中文 too.",
)


#: A chat template like ChatML's; its special tokens are `CHAT_TOKENS`.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")


def toy_bpe_tokenizer(
    texts: Sequence[str] = TOY_TEXT, *, vocab_size: int = 448, extra_special: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like GPT-2's: 256 bytes, merges learnt from `texts`, no BOS.

    Args:
        texts: Training texts.
        vocab_size: Upper bound; small texts may give fewer merges.
        extra_special: More special tokens, after ``<|endoftext|>`` (id 0).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", *extra_special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def toy_sentencepiece_tokenizer(
    texts: Sequence[str] = TOY_TEXT,
    *,
    vocab_size: int = 512,
    add_bos: bool = True,
    dummy_prefix: bool = True,
) -> PreTrainedTokenizerFast:
    """A SentencePiece-style tokenizer: ``▁`` for a space, ``<0xNN>`` for bytes without a token.

    Args:
        texts: Training texts.
        vocab_size: Upper bound, ``<unk> <s> </s>`` and the 256 byte tokens included.
        add_bos: Encoding with special tokens starts with ``<s>`` (Llama-2 and Gemma do).
        dummy_prefix: A space is put before the text and dropped in decoding (Llama-2 does,
            Gemma does not).
    """
    from tokenizers import decoders, normalizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>"]
    core = _sentencepiece_core(texts, special, vocab_size, "first" if dummy_prefix else "never")
    core.add_special_tokens(special)
    # As in the real Llama-2's file: a text that starts with a space keeps it.
    prefix = [normalizers.Prepend("▁")] if dummy_prefix else []
    core.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    last = [decoders.Strip(" ", 1, 0)] if dummy_prefix else []
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        add_bos_token=add_bos,
        clean_up_tokenization_spaces=False,
    )


def _sentencepiece_core(
    texts: Sequence[str], special: Sequence[str], vocab_size: int, prepend_scheme: str
) -> Tokenizer:
    """The special tokens, a token for each byte, and pieces learnt from the texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace("\n", " ")
    learner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    num_pieces = vocab_size - len(special) - 256
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=num_pieces, show_progress=False, special_tokens=[])
    )
    learnt = json.loads(learner.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=lambda piece: learnt["vocab"][piece])
    order = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    return Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(order)},
            merges=[(first, second) for first, second in learnt["merges"]],
            unk_token=special[0],
            fuse_unk=True,
            byte_fallback=True,
        )
    )


def toy_causal_lm(
    vocab_size: int,
    *,
    kind: ToyKind = "llama",
    seed: int = 0,
    max_positions: int = 1024,
    tied: bool = False,
) -> PreTrainedModel:
    """A two-layer random causal LM in float32, in eval mode, width 64, two heads of 32.

    Its logits are peaked enough that greedy decoding visits many tokens; `tied` embeddings, as
    most small real models have them, make it repeat itself more. The global random state is left
    as it was.

    Raises:
        BadInputError: `kind` is not one of the four.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_toy_config(vocab_size, kind, max_positions, tied))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(5.0)
    return model.eval()  # type: ignore[no-any-return]


def save_toy_model(
    path: str | Path,
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    kind: ToyKind = "llama",
    seed: int = 0,
    max_positions: int = 1024,
    tied: bool = False,
) -> Path:
    """Save a toy model and its tokenizer to a folder that transformers and vLLM load.

    Args:
        path: The folder, created if needed.
        tokenizer: None gives :func:`toy_sentencepiece_tokenizer` to `gemma3` and
            :func:`toy_bpe_tokenizer` to the others.
        kind: The architecture.
        seed: Seed of the random weights.
        max_positions: Longest text of the model.
        tied: Input and output embeddings are one table.

    Returns:
        `path`, holding config.json, generation_config.json, model.safetensors and the tokenizer.
    """
    if tokenizer is None:
        tokenizer = (
            toy_sentencepiece_tokenizer(dummy_prefix=False) if kind == "gemma3" else toy_bpe_tokenizer()
        )
    model = toy_causal_lm(len(tokenizer), kind=kind, seed=seed, max_positions=max_positions, tied=tied)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model.config.update(ids)
    model.generation_config.update(**ids)
    folder = Path(path)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _toy_config(vocab_size: int, kind: str, max_positions: int, tied: bool) -> Any:
    """The transformers config of one toy architecture."""
    from transformers import Gemma3TextConfig, GPT2Config, LlamaConfig, Qwen2Config

    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    modern: dict[str, Any] = {
        **common,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": max_positions,
    }
    if kind == "llama":
        return LlamaConfig(**modern)
    if kind == "qwen2":
        return Qwen2Config(**modern)
    if kind == "gemma3":
        return Gemma3TextConfig(**modern, head_dim=32, query_pre_attn_scalar=32, sliding_window=64)
    if kind == "gpt2":
        return GPT2Config(**common, n_embd=64, n_layer=2, n_head=2, n_positions=max_positions)
    raise BadInputError(
        f"kind={kind!r}: toy models are 'llama', 'gpt2', 'gemma3' or 'qwen2'; take one of these."
    )
