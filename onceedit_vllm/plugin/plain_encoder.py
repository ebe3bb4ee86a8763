"""A plug-in's tokenizer reduced to what the text synchronisation needs: text in, plain tokens out."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer

from onceedit_vllm.config import WEIGHT_TOKEN
from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.boundaries import cut_rule, steps_of
from onceedit_vllm.plugin.byte_tokens import ByteTokens, byte_tokens_of
from onceedit_vllm.plugin.cuts import NO_CUT, Cut, CutRule


class Encoded(NamedTuple):
    """A text's tokens.

    Attributes:
        ids: Plain tokens, no specials.
        cut: The last place where the text may be cut: no further text changes the ids before it.
    """

    ids: list[int]
    cut: Cut


Encode = Callable[[str], Encoded]


class PlainEncoder:
    """Encodes text as text: a prompt that spells a control token does not become one.

    The user's tokenizer is copied, never changed.

    Args:
        tokenizer: A transformers tokenizer.

    Attributes:
        leading_ids: The special tokens that the tokenizer puts before every text (BOS, or none).
        cut_rule: Where texts may be cut, None where that is not known.
        num_characters: Characters encoded so far, to count the work.

    Raises:
        ModelError: The tokenizer cannot be copied, changes a text between its special tokens, or
            reads its own control tokens out of plain text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.num_characters = 0
        self.cut_rule: CutRule | None = None
        self._bytes: ByteTokens | None = None
        core = getattr(tokenizer, "backend_tokenizer", None)
        if core is None:
            self._from_start: Encode = _slow_encode(tokenizer)
            self._from_cut = self._from_start
        else:
            plain = _plain_copy(core, _special_texts(tokenizer))
            self._bytes = byte_tokens_of(plain)
            self.cut_rule = cut_rule(plain)
            self._from_start = _encode(plain, self.cut_rule)
            self._from_cut = _encode(_without_prefix(plain), self.cut_rule)
        self.leading_ids = _leading_ids(tokenizer, self._from_start)
        self._refuse_control_tokens(tokenizer)

    def encode(self, text: str, *, at_start: bool) -> Encoded:
        """The tokens of `text`; False: it continues a text that was cut before it."""
        self.num_characters += len(text)
        return self._from_start(text) if at_start else self._from_cut(text)

    def encode_begun(self, text: str, begun: bytes, *, at_start: bool) -> list[int] | None:
        """The tokens of a text and of the first bytes of a character behind it.

        Byte-level BPE merges them with what they stand behind, as in the whole text; SentencePiece's has a
        token for every byte. None where the tokenizer has no tokens for them.
        """
        ids = self.encode(text, at_start=at_start).ids
        return None if self._bytes is None else self._bytes.join(text, ids, begun)

    def _refuse_control_tokens(self, tokenizer: Any) -> None:
        unknown = getattr(tokenizer, "unk_token_id", None)
        for text in _special_texts(tokenizer):
            index = tokenizer.convert_tokens_to_ids(text)
            if index not in (None, unknown) and index in self._from_start(text).ids:
                raise ModelError(
                    f"the plug-in's tokenizer reads its control token {text!r} out of plain text, so a "
                    "prompt could inject it; use a plug-in with a BPE tokenizer"
                )


def _special_texts(tokenizer: Any) -> list[str]:
    """What the control tokens look like, [WEIGHT] included however it was added."""
    decoder = getattr(tokenizer, "added_tokens_decoder", {})
    special = {str(token.content) for token in decoder.values() if token.special}
    return sorted({*special, *getattr(tokenizer, "all_special_tokens", ()), WEIGHT_TOKEN})


def _plain_copy(core: Tokenizer, special: list[str]) -> Tokenizer:
    try:
        plain = Tokenizer.from_str(core.to_str())
    except Exception as error:
        raise ModelError(
            f"the plug-in's tokenizer cannot be copied ({error}); save it as tokenizer.json and load that"
        ) from error
    plain.no_truncation()
    plain.no_padding()
    plain.post_processor = None  # it may trim spaces off the offsets
    known = [text for text in special if plain.token_to_id(text) is not None]
    plain.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in known])
    plain.encode_special_tokens = True
    return plain


def _without_prefix(plain: Tokenizer) -> Tokenizer:
    """The same tokenizer without the space it puts before a text; itself where there is none."""
    steps = [*steps_of(plain.normalizer), *steps_of(plain.pre_tokenizer)]
    if not any(step["type"] in ("Prepend", "Metaspace") or step.get("add_prefix_space") for step in steps):
        return plain
    layout = json.loads(plain.to_str())
    for part in ("normalizer", "pre_tokenizer"):
        _drop_prefix(layout, part)
    continued = Tokenizer.from_str(json.dumps(layout))
    continued.encode_special_tokens = True
    return continued


def _drop_prefix(parent: Any, key: str | int) -> None:
    """Take the dummy prefix out of ``parent[key]``, in place."""
    node = parent[key]
    if node is None:
        return
    children = node.get("normalizers") or node.get("pretokenizers") or []
    for i in range(len(children)):
        _drop_prefix(children, i)
    if node["type"] == "Prepend":
        parent[key] = {"type": "Sequence", "normalizers": []}
    elif node["type"] == "Metaspace":
        node["prepend_scheme"] = "never"
    elif "add_prefix_space" in node:
        node["add_prefix_space"] = False


def _encode(core: Tokenizer, rule: CutRule | None) -> Encode:
    def encode(text: str) -> Encoded:
        encoding = core.encode(text, add_special_tokens=False)
        return Encoded(encoding.ids, NO_CUT if rule is None else rule.last_cut(text, encoding))

    return encode


def _slow_encode(tokenizer: Any) -> Encode:
    plain = copy.deepcopy(tokenizer)

    def encode(text: str) -> Encoded:
        return Encoded(list(plain.encode(text, add_special_tokens=False, split_special_tokens=True)), NO_CUT)

    return encode


def _leading_ids(tokenizer: Any, encode: Encode) -> tuple[int, ...]:
    whole, plain = list(tokenizer.encode("a")), encode("a").ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return tuple(whole[:start])
    raise ModelError(
        f"the plug-in's tokenizer encodes 'a' as {whole} with special tokens and as {plain} without: the "
        "special tokens change the text, so the plug-in cannot follow the LLM; use another plug-in"
    )
