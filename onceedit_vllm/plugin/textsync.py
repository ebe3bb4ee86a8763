"""Keeps the plug-in reading the same text as the LLM, token by token.

The LLM's tokens are bytes; their text, behind the template's prefix and around its suffix, is what
the plug-in must have read: ``ids == leading specials + encode(prefix + prompt + suffix + output)``,
after any number of tokens. Only the text since the last cut is encoded again.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.plugin.plain_encoder import PlainEncoder

if TYPE_CHECKING:
    from onceedit_vllm.alignment.surface import Surface

logger = logging.getLogger("onceedit_vllm.plugin")


class SyncUpdate(NamedTuple):
    """What changed in the tokens that the plug-in must have read.

    Attributes:
        rollback: How many of the last tokens to forget.
        new_ids: Tokens to read then. Empty only if nothing changed at all.
    """

    rollback: int
    new_ids: tuple[int, ...]


class TextSync:
    """Translates LLM tokens to plug-in tokens for many texts.

    Args:
        plugin_tokenizer: The plug-in's transformers tokenizer; copied, never changed.
        llm_surface: What the LLM's tokens stand for.
        prefix: Text before every prompt (the pack's template).
        suffix: Text between prompt and output.
        max_context: Longest text the plug-in reads, in its tokens, specials included.
        encoder: That of the tokenizer, where there is one already; None: one is made, which takes a quarter
            of a second.

    Attributes:
        num_truncated: Texts so far of which the plug-in reads only the end.

    Raises:
        BadInputError: `max_context` leaves no room for text.
        ModelError: The plug-in's tokenizer cannot be used (see :class:`PlainEncoder`).
    """

    def __init__(
        self,
        plugin_tokenizer: Any,
        llm_surface: Surface,
        *,
        prefix: str = "",
        suffix: str = "",
        max_context: int,
        encoder: PlainEncoder | None = None,
    ) -> None:
        self.encoder = encoder or PlainEncoder(plugin_tokenizer)
        self.surface = llm_surface
        self.prefix = prefix
        self.suffix = suffix
        self.max_context = max_context
        self.num_truncated = 0
        if max_context < len(self.encoder.leading_ids) + 2:
            raise BadInputError(
                f"max_context={max_context}: the plug-in needs room for its special tokens and some text; "
                "give it at least 8"
            )

    @property
    def num_encoded_characters(self) -> int:
        """Characters given to the plug-in's tokenizer so far, all texts together."""
        return self.encoder.num_characters

    def start(self, prompt_ids: Iterable[int]) -> SyncedText:
        """Begin a text with a prompt, in LLM tokens."""
        return SyncedText(self, prompt_ids)

    def window_start(self, num_tokens: int) -> int:
        """First token to read of a text of `num_tokens`, specials not counted.

        A pure function that moves in coarse steps, so that a long text is not read anew at every
        token.
        """
        room = self.max_context - len(self.encoder.leading_ids)
        stride = max(1, min(self.max_context // 4, room - 1))
        excess = max(0, num_tokens - room)
        return -(-excess // stride) * stride

    def count_truncated(self) -> None:
        """Count a text that outgrew the plug-in's context, and say so the first time."""
        self.num_truncated += 1
        if self.num_truncated == 1:
            logger.warning(
                "onceedit: a text is longer than the plug-in's context of %d tokens; the plug-in reads "
                "the end of such texts (said once, counted always)",
                self.max_context,
            )


class SyncedText:
    """One text, as the plug-in reads it: a pure function of the prompt's and the output's tokens.

    Attributes:
        reaches_end: The ids hold all of the text. False while it ends in an incomplete character of which the
            plug-in's tokenizer has no tokens; the ids then stop before the token that began it.
        ended: The LLM's output held a special token, such as end of sequence; the text is not
            followed beyond it.
    """

    def __init__(self, sync: TextSync, prompt_ids: Iterable[int]) -> None:
        self._sync = sync
        self.reaches_end = True
        self.ended = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # characters of tokens that also hold a part of the next character
        self._drops_space = sync.surface.strips_prefix_space
        self._ids: list[int] = []  # of the whole text, specials not included
        self._num_settled = 0  # ids before the tail: no later text changes them
        self._tail = ""  # text since the last cut
        self._tail_is_start = True
        self._window = 0
        text = sync.prefix + "".join(self._complete(self._bytes_of(i) or b"" for i in prompt_ids))
        if sync.suffix:
            text += self._held + self._decoder.decode(b"", final=True) + sync.suffix
            self._held = ""
        self._append(text)
        self._add_begun()
        self._move_window()

    @property
    def ready(self) -> bool:
        """False while the text ends in an incomplete UTF-8 character."""
        return not self._decoder.getstate()[0]

    @property
    def ids(self) -> list[int]:
        """What the plug-in must have read."""
        return [*self._sync.encoder.leading_ids, *self._ids[self._window :]]

    def extend(self, llm_ids: Sequence[int]) -> SyncUpdate:
        """Follow new output tokens of the LLM.

        Returns:
            How to get from the last ids to the present ones; ``(0, ())`` where they are the same:
            the tokens hold no text, a part of a character that the plug-in has no tokens for, or come
            after the end.
        """
        before = self._begun
        text = "".join(self._complete(self._outputs(llm_ids)))
        if not text and self._begun == before:
            return SyncUpdate(0, ())
        num_before, settled_before, window_before = len(self._ids), self._num_settled, self._window
        old_end = self._ids[settled_before:]
        if text:
            self._append(text)
        self._add_begun()
        num_leading = len(self._sync.encoder.leading_ids)
        if self._move_window():
            return SyncUpdate(num_leading + num_before - window_before, tuple(self.ids))
        same = _num_common(old_end, self._ids[settled_before:])
        kept = num_leading + max(settled_before + same, self._window) - self._window
        num_read = num_leading + len(self._ids) - self._window
        if kept == num_read < num_leading + num_before - self._window:
            kept -= 1  # shorter, and nothing new: the last token is read again
        return SyncUpdate(num_leading + num_before - self._window - kept, tuple(self._read_from(kept)))

    def _read_from(self, kept: int) -> list[int]:
        leading = self._sync.encoder.leading_ids
        return [*leading[kept:], *self._ids[self._window + max(0, kept - len(leading)) :]]

    def _outputs(self, llm_ids: Sequence[int]) -> Iterable[bytes]:
        for index in llm_ids:
            piece = self._bytes_of(index)
            self.ended = self.ended or piece is None
            if self.ended or piece is None:
                return
            yield piece

    def _bytes_of(self, index: int) -> bytes | None:
        """The bytes of an LLM token; None for specials and for ids without a token."""
        table = self._sync.surface.token_bytes
        return table[index] if 0 <= index < len(table) else None

    def _complete(self, pieces: Iterable[bytes]) -> Iterable[str]:
        """The text of those tokens after which no character is incomplete."""
        for piece in pieces:
            if self._drops_space and piece:
                self._drops_space = False
                piece = piece.removeprefix(b" ")
            self._held += self._decoder.decode(piece)
            if self.ready:
                yield self._held
                self._held = ""

    def _append(self, text: str) -> None:
        """Add text: encode the tail again, and settle what lies before its last cut."""
        self._tail += text
        ids, cut = self._sync.encoder.encode(self._tail, at_start=self._tail_is_start)
        self._ids[self._num_settled :] = ids
        self._num_settled += cut.num_tokens
        self._tail = self._tail[cut.num_characters :]
        self._tail_is_start = self._tail_is_start and not cut.num_characters

    @property
    def _begun(self) -> tuple[str, bytes]:
        """What has come since a token last ended with a whole character: text, and bytes of the next one."""
        return self._held, self._decoder.getstate()[0]

    def _add_begun(self) -> None:
        """Let the ids go on with the bytes of a character that is not complete; the next text replaces them.

        Who has written the first byte of "ř" knows the next one: a plug-in that spells it so must read it.
        """
        held, begun = self._begun
        if begun:
            ids = self._sync.encoder.encode_begun(self._tail + held, begun, at_start=self._tail_is_start)
            if ids is not None:
                self._ids[self._num_settled :] = ids
            self.reaches_end = ids is not None
        else:
            self.reaches_end = True

    def _move_window(self) -> bool:
        """Bring the window to where it belongs; True when it moved."""
        before, self._window = self._window, self._sync.window_start(len(self._ids))
        if self._window and not self._was_truncated:
            self._was_truncated = True
            self._sync.count_truncated()
        return self._window != before

    _was_truncated = False


def _num_common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common prefix."""
    for i, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return i
    return min(len(left), len(right))
