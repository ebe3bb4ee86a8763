"""Toy tokenizers of every structure that the text synchronisation meets."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from onceedit_vllm.testing import TOY_TEXT, toy_bpe_tokenizer, toy_sentencepiece_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT4O_REGEX = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: What the byte-level ones are trained on: merges across whitespace, contractions and digits, so that
#: a cut in the wrong place shows in the tokens.
_HARD = "  \n\n\n  x \t\t it's don't we're 's 't 2000 1999 ... !!! '' e\u0301 \r\n\r\n"
DEEPSEEK_REGEX = (
    r"[!-/:-~]?[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


@cache
def _byte_level() -> PreTrainedTokenizerFast:
    return toy_bpe_tokenizer((*TOY_TEXT, *[_HARD] * 6), vocab_size=520)


def _rebuilt(tokenizer: PreTrainedTokenizerFast, **parts: Any) -> PreTrainedTokenizerFast:
    """The same tokenizer with other parts of its JSON description."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    core = Tokenizer.from_str(json.dumps(layout | parts))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=tokenizer.eos_token, bos_token=tokenizer.bos_token
    )


def with_regex(pattern: str, *earlier: dict[str, Any], **parts: Any) -> PreTrainedTokenizerFast:
    """The byte-level one with another pre-tokenizer."""
    steps = [*earlier, _SPLIT | {"pattern": {"Regex": pattern}}, _BYTES]
    pre_tokenizer = {"type": "Sequence", "pretokenizers": steps}
    return _rebuilt(_byte_level(), pre_tokenizer=pre_tokenizer, **parts)


def _prepending() -> PreTrainedTokenizerFast:
    """Llama-2's older description: normalizer steps, no pre-tokenizer."""
    steps = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    return _rebuilt(
        toy_sentencepiece_tokenizer(),
        normalizer={"type": "Sequence", "normalizers": steps},
        pre_tokenizer=None,
    )


def _gemma_like() -> PreTrainedTokenizerFast:
    """No dummy prefix, and added tokens that are text: newlines, a tag, a pair of spaces."""
    tokenizer = _rebuilt(
        toy_sentencepiece_tokenizer(dummy_prefix=False),
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer={
            **_SPLIT, "pattern": {"String": " "}, "behavior": "MergedWithPrevious"
        },
    )  # fmt: skip
    tokenizer.add_tokens(["\n\n", "<table>", "a b", "▁▁▁"])
    return tokenizer


def _with_added_text() -> PreTrainedTokenizerFast:
    tokenizer = _rebuilt(_byte_level())
    tokenizer.add_tokens(["the ", "a b", ".\n", "\n\n", "<table>"])
    return tokenizer


def _quotations() -> PreTrainedTokenizerFast:
    """One quotation is one piece, so a closing quote joins all the pieces since the opening one."""
    return with_regex(' ?"[^"]*"|' + LLAMA3_REGEX)


def _quotations_with_added_text() -> PreTrainedTokenizerFast:
    """Whether a quote opens or closes depends on what was taken out as an added token."""
    tokenizer = _quotations()
    tokenizer.add_tokens(['1"', "a1", "e\u0301"])
    return tokenizer


def _unigram() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, unk_token="<unk>", show_progress=False, special_tokens=["<unk>"]
    )
    core.train_from_iterator(TOY_TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def _byt5() -> Any:
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer()


ZOO: dict[str, Callable[[], Any]] = {
    "byte-level": _byte_level,
    "byte-level, added text": _with_added_text,
    "byte-level, space first": lambda: _rebuilt(
        _byte_level(),
        pre_tokenizer={**_BYTES, "add_prefix_space": True, "use_regex": True},
    ),
    "llama-3": lambda: with_regex(LLAMA3_REGEX),
    "qwen": lambda: with_regex(LLAMA3_REGEX, normalizer={"type": "NFC"}),
    "gpt-4o": lambda: with_regex(GPT4O_REGEX),
    "digits": lambda: with_regex(LLAMA3_REGEX, {"type": "Digits", "individual_digits": True}),
    "falcon": lambda: with_regex(
        r"\p{N}{3}",
        {"type": "Punctuation", "behavior": "Contiguous"},
        _BYTES | {"use_regex": True},
        {"type": "Digits", "individual_digits": False},
    ),
    "punctuation": lambda: with_regex(LLAMA3_REGEX, {"type": "Punctuation", "behavior": "Isolated"}),
    "deepseek": lambda: with_regex(
        DEEPSEEK_REGEX,
        _SPLIT | {"pattern": {"Regex": r"\p{N}{1,3}"}},
        _SPLIT | {"pattern": {"Regex": "[一-龥぀-ゟ゠-ヿ]+"}},
    ),
    "bloom": lambda: with_regex(r" ?[^(\s|[.,!?…。，、।۔،])]+"),
    "quotations": _quotations,
    "quotations, added text": _quotations_with_added_text,
    "sentencepiece": toy_sentencepiece_tokenizer,
    "sentencepiece, prepending": _prepending,
    "gemma": _gemma_like,
    # Every further digit moves all groups of three.
    "digits from the right": lambda: with_regex(
        r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"
    ),
    "unigram": _unigram,
    "byte, slow": _byt5,
}
#: Those whose structure allows no proof: their texts are encoded whole.
UNPROVEN = ("digits from the right", "unigram", "byte, slow")


@cache
def from_zoo(name: str) -> Any:
    """One of the zoo, built once."""
    return ZOO[name]()
