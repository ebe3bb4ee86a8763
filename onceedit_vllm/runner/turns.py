"""The part of a chat that asks: the user's last turn, found in a prompt's LLM tokens.

A system prompt and the history may be long and name anything; what is asked stands in the last turn. So it
is all that subjects are looked for in and all that the plug-in reads, and what a request costs does not grow
with its chat.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from onceedit_vllm.alignment.surface import Surface

#: Three turns whose places in a rendered chat can be found again.
_SAID = ("onceeditfirst", "onceeditsecond", "onceeditthird")
_ROLES = ("user", "assistant", "user")


class Span(NamedTuple):
    """Tokens `start` to `end`, the latter not included."""

    start: int
    end: int


class ChatTurns:
    """Knows how a chat template opens and closes a user's turn.

    Args:
        opens: The tokens that open one.
        closes: The tokens that close it.
        surface: What tokens stand for.
    """

    def __init__(self, opens: Sequence[int], closes: Sequence[int], surface: Surface) -> None:
        self._opens, self._closes = list(opens), list(closes)
        self._surface = surface
        newline = surface.id_of.get(b"\n")
        self._between = () if newline is None else (newline,)

    @classmethod
    def of(cls, tokenizer: Any, surface: Surface, template: str | None = None) -> ChatTurns | None:
        """Read them off a chat template.

        Args:
            tokenizer: The LLM's.
            surface: What its tokens stand for.
            template: The template, or its file; None: the tokenizer's own.

        Returns:
            None where there is no template, or none in which a user's turn can be told from the assistant's:
            then prompts are no chats.
        """
        between = _render(tokenizer, _read(template))
        if between is None:
            return None
        before, answering, asking, after = between
        opens = _find_opening(_common_end(before, asking), answering, surface)
        closes = _find_closing(_common_start(answering, after), surface)
        return cls(opens, closes, surface) if opens and closes else None

    def windows(self, prompt_ids: Sequence[int]) -> Iterator[list[int]]:
        """What to look at in a chat, in turn: the last turn of the user, and that behind the one before.

        The second is for a last turn that names nothing ("And its capital?"). Nothing where the prompt is no
        chat by this template.
        """
        packed = _pack(prompt_ids)
        last = self._find_last(packed, len(prompt_ids))
        if last is None:
            return
        asked = self._strip(prompt_ids[last.start : last.end])
        yield asked
        previous = self._find_last(packed, last.start - len(self._opens))
        if previous is not None:
            yield [*self._strip(prompt_ids[previous.start : previous.end]), *self._between, *asked]

    def _find_last(self, packed: bytes, end: int) -> Span | None:
        """The last of the user's turns that opens before a token."""
        opened = _find(packed, self._opens, 0, end, last=True)
        if opened < 0:
            return None
        start = opened + len(self._opens)
        closed = _find(packed, self._closes, start, end)
        return Span(start, end if closed < 0 else closed)

    def _strip(self, ids: Sequence[int]) -> list[int]:
        """Without blanks before it, and blank tokens behind it: they are the template's as likely as not."""
        end = len(ids)
        while end and _is_blank(ids[end - 1], self._surface):
            end -= 1
        text = self._surface.bytes_of(ids[:end])
        return self._surface.without(ids[:end], 0, len(text) - len(text.lstrip()))


def _read(template: str | None) -> str | None:
    """A template that may be given as the name of its file."""
    if template is None or "{" in template or not Path(template).is_file():
        return template
    return Path(template).read_text(encoding="utf-8")


def _render(tokenizer: Any, template: str | None) -> list[list[int]] | None:
    """The tokens before, between and behind three turns that a chat template renders."""
    template = template or getattr(tokenizer, "chat_template", None)
    if not template or not getattr(tokenizer, "is_fast", False):
        return None
    turns = [{"role": role, "content": text} for role, text in zip(_ROLES, _SAID, strict=True)]
    try:
        text: Any = _apply(tokenizer, turns, template)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except Exception:  # a template is somebody else's program
        return None
    starts = [text.find(said) for said in _SAID]
    if -1 in starts:
        return None
    ends = [start + len(said) for start, said in zip(starts, _SAID, strict=True)]
    spans = list(zip([0, *ends], [*starts, len(text)], strict=True))
    pairs = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
    return [[i for i, (low, high) in pairs if start <= low and high <= end] for start, end in spans]


def _apply(tokenizer: Any, turns: list[dict[str, str]], template: Any) -> Any:
    return tokenizer.apply_chat_template(
        turns, chat_template=template, add_generation_prompt=True, tokenize=False
    )


def _find_opening(ids: Sequence[int], answering: Sequence[int], surface: Surface) -> list[int]:
    """What tells a user's turn, of what stands before it.

    The shortest end of that which begins with a special token, if there is one, and is in no assistant's
    opening.
    """
    kept = list(ids)
    while kept and _is_blank(kept[-1], surface):
        kept.pop()
    starts = [at for at, token in enumerate(kept) if token in surface.special_ids] or [0]
    for start in reversed(starts):
        if kept[start:] and _find(_pack(answering), kept[start:], 0, len(answering)) < 0:
            return kept[start:]
    return []


def _find_closing(ids: Sequence[int], surface: Surface) -> list[int]:
    """What stands behind a user's turn, up to its first special token; all of it where there is none."""
    kept = list(ids)
    while kept and _is_blank(kept[0], surface):
        kept.pop(0)
    for at, token in enumerate(kept):
        if token in surface.special_ids:
            return kept[: at + 1]
    while kept and _is_blank(kept[-1], surface):
        kept.pop()
    return kept


def _is_blank(token: int, surface: Surface) -> bool:
    """Whether a token is white space; a special one is not."""
    text = surface.token_bytes[token] if token < surface.vocab_size else None
    return text is not None and not text.strip()


def _common_start(one: Sequence[int], other: Sequence[int]) -> list[int]:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return list(one[:length])


def _common_end(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return _common_start(one[::-1], other[::-1])[::-1]


_INT = "i"
_WIDTH = array(_INT).itemsize


def _pack(ids: Sequence[int]) -> bytes:
    return array(_INT, ids).tobytes()


def _find(packed: bytes, wanted: Sequence[int], start: int, end: int, *, last: bool = False) -> int:
    """Where tokens stand in packed ones, between two places; -1 for nowhere."""
    pattern = _pack(wanted)
    low, high = start * _WIDTH, end * _WIDTH
    while True:
        at = packed.rfind(pattern, low, high) if last else packed.find(pattern, low, high)
        if at < 0 or at % _WIDTH == 0:
            return -1 if at < 0 else at // _WIDTH
        low, high = (low, at + len(pattern) - 1) if last else (at + 1, high)
