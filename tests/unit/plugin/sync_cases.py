"""What the text synchronisation must give, worked out the slow way, and texts that are hard on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.plugin.textsync import SyncedText, TextSync

FRAGMENTS = (
    "a", "the", " the", "The", " don't", "'s", "'", "''", " ", "  ", "      ", "\n", "\n\n",
    "\r\n", "\r", "\t", "   \n", "1", "23", " 456", "7890", "²", "½", "Ⅷ", "é", "e\u0301",
    "\u0301", "ß", "ﬁ", "Ω≈ç", "\u212b", "日本", "語", "中文", "，", "。", "한국", "ᄒ", "ᅡ", "ᆫ",
    "हिन्दी", "ไทย", "مرحبا؟", "עברית", "😀", "👩‍👩‍👧", "🇫🇷", "👍🏽", "\u200d", "\ufe0f", "𝓗", "𐍈",
    "\ufffd", "\x00", "\x1c", "\u00a0", "\u3000", "\u2028", "<|im_end|>", "<|endoftext|>",
    "<s>", "</s>", "<eos>", "<bos>", "<unk>", "[WEIGHT]", "<0x41>", "<table>", "a b", "▁", "▁▁",
    "Ġ", "def f(x):\n    return x\n", "http://x.y/z?q=1", "!!!", "...", "_", "-" * 20, "A" * 30,
    ">▁</", "> </", '"', '"To be, or', "\u0295", "\u1c89", "\U0001fae8", "\uffff", "ſ",
    '1"to be, or "not',
)  # fmt: skip

TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=14).map("".join)


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a whole text, control tokens spelled out, specials not added."""
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


#: A DrawFn, or the draw of a DataObject, which takes the same.
Draw = Callable[..., Any]


@st.composite
def llm_tokens(draw: st.DrawFn, tokenizer: Any, surface: Surface) -> list[int]:
    """Tokens of an LLM without specials: of a text, of a text with some missing, or any at all."""
    usable = [i for i, text in enumerate(surface.token_bytes) if text is not None]
    ids = [i for i in plain_ids(tokenizer, draw(TEXTS)) if surface.token_bytes[i] is not None]
    kind = draw(st.sampled_from(("text", "text", "broken", "any")))
    if kind == "any":
        return draw(st.lists(st.sampled_from(usable), max_size=12))
    if kind == "broken" and ids:
        missing = draw(st.sets(st.integers(0, len(ids) - 1), max_size=3))
        return [token for i, token in enumerate(ids) if i not in missing]
    return ids


def chunked(draw: Draw, ids: Sequence[int]) -> list[list[int]]:
    """The ids in pieces of one to four."""
    pieces, start = [], 0
    while start < len(ids):
        size = draw(st.integers(1, 4))
        pieces.append(list(ids[start : start + size]))
        start += size
    return pieces


def expected_ids(
    sync: TextSync, tokenizer: Any, prompt_ids: Sequence[int], output_ids: Sequence[int]
) -> list[int]:
    """The invariant, for tokens that end in a whole character."""
    stream = sync.prefix.encode() + sync.surface.decode_bytes(prompt_ids) + sync.suffix.encode()
    if sync.surface.strips_prefix_space and not any(sync.surface.token_bytes[i] for i in prompt_ids):
        stream += sync.surface.decode_bytes(output_ids)
    else:
        stream += b"".join(sync.surface.token_bytes[i] or b"" for i in output_ids)
    text = stream.decode("utf-8", errors="replace")
    return [*sync.encoder.leading_ids, *plain_ids(tokenizer, text)]


def check_following(
    draw: Draw, sync: TextSync, tokenizer: Any, prompt_ids: Sequence[int], output_ids: Sequence[int]
) -> SyncedText:
    """Follow an output in pieces and check ids and updates at every one."""
    text = sync.start(prompt_ids)
    read, position = text.ids, 0
    for piece in chunked(draw, output_ids):
        update = text.extend(piece)
        position += len(piece)
        assert update.rollback <= len(read)
        assert update.new_ids or not update.rollback
        if update.rollback and len(update.new_ids) > 1:
            assert read[-update.rollback] != update.new_ids[0], "more was forgotten than had changed"
        read = [*read[: len(read) - update.rollback], *update.new_ids]
        assert read == text.ids
        if text.ready:
            assert read == expected_ids(sync, tokenizer, prompt_ids, output_ids[:position])
    at_once = sync.start(prompt_ids)
    at_once.extend(output_ids)
    assert (at_once.ids, at_once.ready, at_once.ended) == (text.ids, text.ready, text.ended)
    return text
