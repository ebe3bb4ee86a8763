"""Where a text may be cut so that both halves, tokenized apart, give the tokens of the whole.

Two kinds of tokenizer allow a proof, made once from the tokenizer's own description:

- a regex pre-tokenizer (GPT-2, SmolLM2, Qwen, Llama-3, ...): no match holds both characters at the
  cut, so the cut is a border between two pre-tokens in every context;
- BPE without pre-tokenization (Llama-2, Mistral, Gemma): no token holds the two characters side by
  side, so no merge crosses the cut.

Anything else gets no rule, and its texts are tokenized whole.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenizers import AddedToken, Tokenizer, models

from onceedit_vllm.plugin.char_cells import MARK, WHITESPACE, cell_of
from onceedit_vllm.plugin.regex_pairs import RegexPairs, UnprovenError, analyse

METASPACE = "▁"

#: The regex inside the tokenizers library's ByteLevel pre-tokenizer.
_BYTE_LEVEL_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
#: Pre-tokenizers that may follow: they work on one piece at a time, whatever its neighbours.
_PIECEWISE = ("Split", "Digits", "Punctuation", "ByteLevel", "Whitespace", "WhitespaceSplit")


class CutRule(Protocol):
    """Says between which two neighbouring characters a text may be cut."""

    def allows(self, left: str, right: str) -> bool:
        """True when every text may be cut between these two characters, whatever is around."""


def last_cut(rule: CutRule, text: str, start: int) -> int:
    """The last position in ``start..len(text)-1`` where `text` may be cut, 0 if there is none."""
    for position in range(len(text) - 1, max(start, 1) - 1, -1):
        if rule.allows(text[position - 1], text[position]):
            return position
    return 0


@dataclass(frozen=True)
class RegexCuts:
    """Cuts at the borders of regex pre-tokens.

    Attributes:
        stages: The splitting stages that see the text itself, in order.
        joined: Pairs of characters inside some added token.
        composes: The normalizer is NFC, which may join a character and the marks after it.
    """

    stages: tuple[RegexPairs, ...]
    joined: frozenset[str] = field(repr=False)
    composes: bool

    def allows(self, left: str, right: str) -> bool:
        """See :class:`CutRule`."""
        before, after = cell_of(left), cell_of(right)
        # A look-ahead is only ever taken from behind whitespace (see `analyse`).
        if not before or not after or before & WHITESPACE or _pair(left, right) in self.joined:
            return False
        if self.composes and not (_stands_alone(left, before) and _stands_alone(right, after)):
            return False
        for stage in self.stages:
            if stage.allows(before, after):
                return False
            if stage.covers & (before | after):
                return True  # one of the two is matched, and not together with the other
        return False


@dataclass(frozen=True)
class BigramCuts:
    """Cuts between characters that no token of the vocabulary holds side by side."""

    joined: frozenset[str] = field(repr=False)

    def allows(self, left: str, right: str) -> bool:
        """See :class:`CutRule`."""
        return _pair(left, right) not in self.joined


def cut_rule(core: Tokenizer) -> CutRule | None:
    """The rule of a tokenizer whose special tokens are read as plain text; None if unproven."""
    try:
        added = list(core.get_added_tokens_decoder().values())
        extracted = [token for token in added if not token.special]
        if any(token.lstrip or token.rstrip or token.single_word for token in extracted):
            return None
        normalizer, pre_tokenizer = steps_of(core.normalizer), steps_of(core.pre_tokenizer)
        vocabulary = core.get_vocab().keys()
        if _merges_alone_join(core, vocabulary) and _spells_spaces(
            normalizer, pre_tokenizer, prefixes_alone=not extracted
        ):
            return BigramCuts(_bigrams(vocabulary))
        stages = _stages(pre_tokenizer, prefixes_alone=not extracted)
        if not _is_deterministic(core) or any(step["type"] != "NFC" for step in normalizer):
            return None
        return RegexCuts(stages, _bigrams(_spellings(added)), composes=bool(normalizer))
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


def _pair(left: str, right: str) -> str:
    return (left + right).replace(" ", METASPACE)


def _bigrams(texts: Iterable[str]) -> frozenset[str]:
    """All pairs of neighbouring characters, a space spelled ``▁``."""
    spelled = (text.replace(" ", METASPACE) for text in texts)
    return frozenset(text[i : i + 2] for text in spelled for i in range(len(text) - 1))


def _spellings(added: Iterable[AddedToken]) -> Iterator[str]:
    for token in added:
        yield token.content
        yield unicodedata.normalize("NFC", token.content)


def _stands_alone(character: str, cell: int) -> bool:
    """True when NFC neither joins this character to the one before nor to marks of another text."""
    # The only starters that compose backwards, marks aside: Hangul vowels and final consonants,
    # and letters of scripts beyond the basic plane.
    return not cell & MARK and character < "\U00010000" and not "ᅠ" <= character <= "ᇿ"


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


def _stages(pre_tokenizer: list[dict[str, Any]], *, prefixes_alone: bool) -> tuple[RegexPairs, ...]:
    """The stages that decide the cuts: all up to one that respells the text.

    Raises:
        UnprovenError: There is none, or a stage of no known kind.
    """
    stages: list[RegexPairs] = []
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
    return tuple(stages)


def _stage(step: dict[str, Any]) -> RegexPairs:
    kind = step["type"]
    if kind == "ByteLevel" and step.get("use_regex", True):
        return analyse(_BYTE_LEVEL_REGEX)
    if kind == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        pattern: dict[str, str] = step["pattern"]
        if "Regex" in pattern:
            return analyse(pattern["Regex"])
    if kind == "Digits":
        return analyse(r"\p{N}" if step["individual_digits"] else r"\p{N}+")
    if kind == "Punctuation" and step["behavior"] in ("Isolated", "Contiguous"):
        return analyse(r"[\p{P}\p{S}]+")
    raise UnprovenError(kind)
