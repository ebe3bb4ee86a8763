"""Where a text may be cut so that all further text leaves the tokens before the cut as they are.

Where a text's words and tokens begin is asked of the tokenizer itself. That no later text moves a
border is known for two kinds of tokenizer:

- a regex pre-tokenizer (GPT-2, SmolLM2, Qwen, Llama-3, ...): no match that begins before the border
  could go on beyond the end of the text. :mod:`regex` is asked, by a partial match;
- BPE without pre-tokenization (Llama-2, Mistral, Gemma): no token holds the two characters at the
  border side by side, so no merge crosses it.

Anything else gets no rule, and its texts are tokenized whole.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import regex
from tokenizers import AddedToken, Encoding, Tokenizer, models

METASPACE = "▁"

#: The regex inside the tokenizers library's ByteLevel pre-tokenizer.
_BYTE_LEVEL_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
#: Pre-tokenizers that may follow: they work on one piece at a time, whatever its neighbours.
_PIECEWISE = ("Split", "Digits", "Punctuation", "ByteLevel", "Whitespace", "WhitespaceSplit")
#: Escapes that `regex` and the tokenizer's engine (Oniguruma) read alike.
_ESCAPE = regex.compile(r"\\[pP](?:\{\^?\w+\}|[A-Z])|\\[sSdDnrtfv]|\\[^\w\s]")
#: What they read differently, or what looks beyond the match: other escapes, anchors, look-arounds,
#: flags (but on plain letters), operations on sets, braces that are no count or are followed by a sign.
_UNSURE = regex.compile(
    r"\\|\$|(?<!\[)\^|\(\?(?!:|i:['\w|]*\))|&&|\|\||--|~~|\[:|\{(?!\d+(?:,\d*)?\}|,\d+\})|\}[+?]"
)
#: A noncharacter; searched text has another in its place.
_NOWHERE = "\uffff"


class UnprovenError(Exception):
    """Nothing is known about where this tokenizer's texts may be cut."""


class Cut(NamedTuple):
    """A place in a text, 0 of both for its start.

    Attributes:
        num_tokens: Tokens before it.
        num_characters: Characters before it.
    """

    num_tokens: int
    num_characters: int


NO_CUT = Cut(0, 0)


class CutRule(Protocol):
    """Says where a text may be cut."""

    def last_cut(self, text: str, encoding: Encoding) -> Cut:
        """The last cut inside `text`, which was encoded as `encoding`; :data:`NO_CUT` if there is none.

        The tokens before it are final, and those behind it are the tokens of the rest encoded apart,
        whatever text is still to come.
        """


@dataclass(frozen=True)
class RegexCuts:
    """Cuts at the borders of regex pre-tokens.

    A regex that looks around no farther than ``\\s+(?!\\S)`` splits the text from left to right, and
    its choice at a position depends on later text only if some way of matching there reads all the
    text there is and asks for more. Before the first such position every border is final.

    Attributes:
        continued: Matches from where a match of some stage could go on beyond the text.
        joined: Pairs of characters inside some added token.
        lead: What the pre-tokenizer puts before a text.
        normalize: NFC as the tokenizer does it, which may join a character and the marks after it.
    """

    continued: regex.Pattern[str]
    joined: frozenset[str] = field(repr=False)
    lead: str = ""
    normalize: Callable[[str], str] | None = None

    def last_cut(self, text: str, encoding: Encoding) -> Cut:
        """See :class:`CutRule`."""
        num_final = self._num_final(text)
        if num_final < 1:
            return NO_CUT
        words = encoding.word_ids
        for cut in _borders(encoding):
            i, position = cut
            if words[i - 1] != words[i] and self._stands(text, position, num_final):
                return cut
        return NO_CUT

    def _num_final(self, text: str) -> int:
        """Characters, normalized, at and before which a border is final."""
        known = self.lead + (text if self.normalize is None else self._settled(self.normalize(text)))
        found = self.continued.search(known.replace(_NOWHERE, "\ufffe"), partial=True)
        return (len(known) if found is None else found.start()) - len(self.lead)

    def _stands(self, text: str, position: int, num_final: int) -> bool:
        left, right = text[position - 1], text[position]
        # An added token after whitespace would end the text for a look-ahead from that whitespace.
        if left.isspace() or _pair(left, right) in self.joined:
            return False
        if self.normalize is None:
            return position <= num_final
        # Behind a starter that has not joined what is before it, nothing ever does.
        return not unicodedata.combining(right) and len(self.normalize(text[:position])) <= num_final

    @staticmethod
    def _settled(normalized: str) -> str:
        """What no further text changes: all before the last starter, which may be composed yet."""
        end = len(normalized)
        while end and unicodedata.combining(normalized[end - 1]):
            end -= 1
        return normalized[: max(0, end - 1)]


@dataclass(frozen=True)
class BigramCuts:
    """Cuts between characters that no token of the vocabulary holds side by side."""

    joined: frozenset[str] = field(repr=False)

    def last_cut(self, text: str, encoding: Encoding) -> Cut:
        """See :class:`CutRule`."""
        for cut in _borders(encoding):
            position = cut.num_characters
            if _pair(text[position - 1], text[position]) not in self.joined:
                return cut
        return NO_CUT


def _borders(encoding: Encoding) -> Iterator[Cut]:
    """Where a token begins and none goes on, the start aside, from the last to the first."""
    offsets = encoding.offsets
    for i in range(len(offsets) - 1, 0, -1):
        start = offsets[i][0]
        if 0 < start >= offsets[i - 1][1]:
            yield Cut(i, start)


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
        if not _is_deterministic(core) or any(step["type"] != "NFC" for step in normalizer):
            return None
        return RegexCuts(
            _continued(_stages(pre_tokenizer, prefixes_alone=not extracted)),
            _bigrams(_spellings(added)),
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
    """What a step's pieces match, or more than that."""
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
        return r"[\p{P}\p{S}]+"
    raise UnprovenError(kind)


def _continued(stages: Iterable[str]) -> regex.Pattern[str]:
    """A pattern whose leftmost partial match starts where a match of some stage reaches the text's end.

    Raises:
        UnprovenError: A regex looks beyond its matches, may match nothing, or is not surely read alike
            by both engines.
    """
    # The look-ahead sees one character behind whitespace: to the end of the text is as far as `\s+`.
    patterns = [pattern.replace(r"\s+(?!\S)", r"\s+") for pattern in stages]
    for pattern in patterns:
        if _UNSURE.search(_ESCAPE.sub("_", pattern)):
            raise UnprovenError(pattern)
    try:
        whole = regex.compile("|".join(f"(?:{pattern})" for pattern in patterns), regex.V1)
        # It never matches in full, so that the search is for partial matches, from the left.
        continued = regex.compile(f"(?:{whole.pattern}){_NOWHERE}", regex.V1)
    except regex.error as error:
        raise UnprovenError(str(error)) from error
    if whole.match(""):
        raise UnprovenError(whole.pattern)
    return continued
