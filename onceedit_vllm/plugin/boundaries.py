"""Where a tokenizer allows a text to be cut, read once from its own description.

GPT-2, SmolLM2, Qwen, Llama-3 and others split by a regex; Llama-2, Mistral and Gemma are BPE without
pre-tokenization. Anything else gets no rule, and its texts are tokenized whole.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Set
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from onceedit_vllm.plugin.cuts import METASPACE, BigramCuts, CutRule, RegexCuts, UnprovenError, scanner

#: The regex inside the tokenizers library's ByteLevel pre-tokenizer.
_BYTE_LEVEL_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
#: Unicode's and ASCII's, as the Punctuation pre-tokenizer has it.
_PUNCTUATION = r"[\p{P}\$\+<=>\^`\|~]"
#: Pre-tokenizers that may follow: they work on one piece at a time, whatever its neighbours.
_PIECEWISE = ("Split", "Digits", "Punctuation", "ByteLevel", "Whitespace", "WhitespaceSplit")


def cut_rule(core: Tokenizer) -> CutRule | None:
    """The rule of a tokenizer whose special tokens are read as plain text; None if unproven."""
    try:
        added = core.get_added_tokens_decoder()
        extracted = {index: token for index, token in added.items() if not token.special}
        if any(token.lstrip or token.rstrip or token.single_word for token in extracted.values()):
            return None
        normalizer, pre_tokenizer = steps_of(core.normalizer), steps_of(core.pre_tokenizer)
        vocabulary = core.get_vocab().keys()
        if _merges_alone_join(core, vocabulary) and _spells_spaces(
            normalizer, pre_tokenizer, prefixes_alone=not extracted
        ):
            return BigramCuts(_bigrams(vocabulary))
        if not _is_deterministic(core) or any(step["type"] != "NFC" for step in normalizer):
            return None
        return RegexCuts(
            tuple(map(scanner, _stages(pre_tokenizer, prefixes_alone=not extracted))),
            frozenset(extracted),
            _bigrams(_spellings(added.values())),
            lead=" " if any(step.get("add_prefix_space") for step in pre_tokenizer) else "",
            normalize=core.normalizer.normalize_str if normalizer else None,
        )
    except UnprovenError:
        return None


def steps_of(component: Any) -> list[dict[str, Any]]:
    """A normalizer's or pre-tokenizer's steps in order, sequences unfolded; [] for None."""
    return [] if component is None else list(_unfolded(json.loads(component.__getstate__())))


def _unfolded(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node["type"] != "Sequence":
        yield node
        return
    for child in node.get("normalizers") or node.get("pretokenizers") or ():
        yield from _unfolded(child)


def _bigrams(texts: Iterable[str]) -> frozenset[str]:
    """All pairs of neighbouring characters, a space spelled ``▁``."""
    spelled = (text.replace(" ", METASPACE) for text in texts)
    return frozenset(text[i : i + 2] for text in spelled for i in range(len(text) - 1))


def _spellings(added: Iterable[AddedToken]) -> Iterator[str]:
    for token in added:
        yield token.content
        yield unicodedata.normalize("NFC", token.content)


def _is_deterministic(core: Tokenizer) -> bool:
    return not (isinstance(core.model, models.BPE) and core.model.dropout)


def _merges_alone_join(core: Tokenizer, vocabulary: Set[str]) -> bool:
    """True for BPE whose tokens over several characters all come from merges of those characters."""
    model = core.model
    if not isinstance(model, models.BPE) or not _is_deterministic(core):
        return False
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        return False
    byte_tokens = {f"<0x{byte:02X}>" for byte in range(256)}
    falls_back = model.byte_fallback and byte_tokens <= vocabulary
    if model.unk_token is not None and model.fuse_unk and not falls_back:
        return False  # runs of unknown characters become one token
    # A merge of byte tokens would be spelled otherwise than the text it stands for.
    longer = [token for token in vocabulary if "<0x" in token and token not in byte_tokens]
    return not any(byte_token in token for token in longer for byte_token in byte_tokens)


def _spells_spaces(
    normalizer: list[dict[str, Any]], pre_tokenizer: list[dict[str, Any]], *, prefixes_alone: bool
) -> bool:
    """True when the steps only turn spaces into ``▁`` and put one before the text."""
    spelled = False
    for step in [*normalizer, *pre_tokenizer]:
        kind = step["type"]
        if kind == "Replace" and step["pattern"] == {"String": " "} and step["content"] == METASPACE:
            spelled = True
        elif kind == "Prepend" and step["prepend"] == METASPACE and prefixes_alone:
            continue
        elif kind == "Metaspace" and step["replacement"] == METASPACE:
            if step["prepend_scheme"] == "always" and not prefixes_alone:
                return False  # once per stretch between added tokens
            spelled = True
        elif kind == "Split" and step["pattern"] == {"String": " "} and spelled:
            continue  # no space is left to split at
        else:
            return False
    return spelled


def _stages(pre_tokenizer: list[dict[str, Any]], *, prefixes_alone: bool) -> list[str]:
    """The regexes that decide the cuts: all up to one that respells the text.

    Raises:
        UnprovenError: There is none, or a stage of no known kind.
    """
    stages: list[str] = []
    respelled = False
    for i, step in enumerate(pre_tokenizer):
        if step.get("add_prefix_space") and (i > 0 or not prefixes_alone):
            raise UnprovenError("a space before every piece")
        if not respelled:
            respelled = step["type"] == "ByteLevel"
            if not respelled or step.get("use_regex", True):
                stages.append(_stage(step))
        elif step["type"] not in _PIECEWISE:
            raise UnprovenError(step["type"])
    if not stages:
        raise UnprovenError("no pre-tokenizer splits the text")
    return stages


def _stage(step: dict[str, Any]) -> str:
    """What a step takes as pieces."""
    kind = step["type"]
    if kind == "ByteLevel":
        return _BYTE_LEVEL_REGEX
    if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        pattern: dict[str, str] = step["pattern"]
        if "Regex" in pattern:
            return pattern["Regex"]
    if kind == "Digits":
        return r"\p{N}" if step["individual_digits"] else r"\p{N}+"
    if kind == "Punctuation" and step["behavior"] in ("Isolated", "Contiguous"):
        return _PUNCTUATION if step["behavior"] == "Isolated" else f"{_PUNCTUATION}+"
    raise UnprovenError(kind)
