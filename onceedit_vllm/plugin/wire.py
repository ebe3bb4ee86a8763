"""What travels between an engine and a plug-in host in another process, as bytes.

MessagePack of the structures below. Tensors are raw little-endian bytes: tokens int32, masses float32, so
that a list arrives with the very bits it had. What cannot be read is a
:class:`~onceedit_vllm.errors.WireError` on the side that reads it, whatever is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
import torch

from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.surface import Style, Surface
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import WireError
from onceedit_vllm.fusion.lists import Lists, cut
from onceedit_vllm.plugin.host import ActivePack, Vocabulary
from onceedit_vllm.plugin.packets import Answer, Answers, Event, State

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of these structures; both sides must have the same.
VERSION = 3

_IDS, _MASS = np.dtype("<i4"), np.dtype("<f4")


class VocabularyBytes(msgspec.Struct, frozen=True, array_like=True):
    """A :class:`~onceedit_vllm.plugin.host.Vocabulary`."""

    style: Style
    token_bytes: Sequence[bytes | None]
    special_ids: Sequence[int]
    fallback_ids: Sequence[int]
    eos_id: int | None
    strips_prefix_space: bool
    carry: bytes
    spelt_tokens: bytes
    spelt_ids: bytes
    spelt_ends: bytes
    width: int

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> VocabularyBytes:
        """From tensors and tables."""
        surface, carry, spellings, width = vocabulary
        return cls(
            surface.style,
            surface.token_bytes,
            sorted(surface.special_ids),
            sorted(surface.fallback_ids),
            surface.eos_id,
            surface.strips_prefix_space,
            ids_bytes(carry),
            ids_bytes(spellings.tokens),
            ids_bytes(spellings.ids),
            ids_bytes(spellings.ends),
            width,
        )

    def read(self) -> Vocabulary:
        """To tensors and tables.

        Raises:
            WireError: A table is cut off.
        """
        surface = Surface(
            self.style,
            list(self.token_bytes),
            frozenset(self.special_ids),
            frozenset(self.fallback_ids),
            self.eos_id,
            self.strips_prefix_space,
        )
        spelt = (self.spelt_tokens, self.spelt_ids, self.spelt_ends)
        spellings = Spellings(*(ids_tensor(table) for table in spelt))
        return Vocabulary(surface, ids_tensor(self.carry), spellings, self.width)


class NamedPack(msgspec.Struct, frozen=True, array_like=True):
    """An :class:`~onceedit_vllm.plugin.host.ActivePack`: of its edits, what prompts are compared with.

    Attributes:
        epoch: Its number.
        edits: Of each the prompt, the target, the subject and the aliases.
    """

    epoch: int
    edits: Sequence[tuple[str, str, str | None, tuple[str, ...]]]

    @classmethod
    def of(cls, active: ActivePack) -> NamedPack:
        """From its edits."""
        edits = [(edit.prompt, edit.target, edit.subject, edit.aliases) for edit in active.edits]
        return cls(active.epoch, edits)

    def read(self) -> ActivePack:
        """To edits that are called by their places."""
        edits = [
            EditRecord(id=str(place), prompt=prompt, target=target, subject=subject, aliases=aliases)
            for place, (prompt, target, subject, aliases) in enumerate(self.edits)
        ]
        return ActivePack(self.epoch, edits)


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """The plug-in's distribution for one request: a row of :class:`~onceedit_vllm.fusion.lists.Lists`.

    Attributes:
        ids: (k,) int32, the LLM tokens listed, ascending; None: all targets, a whole list.
        mass: (k,) float32, the plug-in's probability on each.
        tail: At least the probability on all others; NaN for a row that says nothing.
    """

    ids: bytes | None
    mass: bytes
    tail: float

    def check(self, num_targets: int, width: int) -> None:
        """Refuse what cannot be a list.

        Args:
            num_targets: Tokens of a whole list.
            width: V_l, the width of the LLM's logits.

        Raises:
            WireError: Its tokens and masses do not go together, or a token is out of range.
        """
        mass = _array_of(self.mass, _MASS)
        if self.ids is None:
            if len(mass) != num_targets:
                raise WireError(f"a whole list of {len(mass)} masses, but there are {num_targets} targets")
            return
        ids = _array_of(self.ids, _IDS)
        if len(ids) != len(mass) or (len(ids) and not 0 <= ids.min() <= ids.max() < width):
            raise WireError(f"a list of {len(ids)} tokens and {len(mass)} masses for a width of {width}")


class Packet(msgspec.Struct, frozen=True, array_like=True):
    """What the host says of one request.

    Attributes:
        handle: The engine's name for it.
        length: Output tokens that it had then.
        state: See :class:`~onceedit_vllm.plugin.packets.State`.
        alpha: None while nothing was decided.
        listed: None where it is not speaking.
    """

    handle: int
    length: int
    state: State
    alpha: float | None = None
    listed: Listed | None = None

    @property
    def answer(self) -> Answer:
        """Without its list."""
        return Answer(self.state, self.alpha)

    def check(self, num_targets: int, width: int) -> None:
        """Refuse a list that cannot be one, and words without one (see :meth:`Listed.check`).

        Raises:
            WireError: It cannot be used.
        """
        if (self.state == State.SPEAKING) != (self.listed is not None):
            raise WireError(f"request {self.handle} is {self.state.name} and has a list, or should have one")
        if self.listed is not None:
            self.listed.check(num_targets, width)


# From an engine. Each names the attachment that it belongs to, so that nothing of an older one is taken for
# the present one's.


class Attach(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Whoever sends it is an engine from now on. Replaces what it was before.

    Attributes:
        version: :data:`VERSION` of its side.
        session: The number of this attachment.
        token: What the host asks for; empty where it asks for nothing.
        pack: The digest of the pack's manifest that the engine was started with; empty: any.
        threshold: In place of those of all packs.
        vocabulary: Its LLM's.
    """

    version: int
    session: int
    token: str
    pack: str
    threshold: float | None
    vocabulary: VocabularyBytes


class Step(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What happened to requests. The answer has a packet for each that was opened or appended to."""

    session: int
    events: Sequence[Event]


class More(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The whole lists of requests that are speaking, each with the number of its output tokens."""

    session: int
    wanted: Sequence[tuple[int, int]]


class Tally(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """How much was counted; answered in its turn."""

    session: int
    number: int


class Detach(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine ends."""

    session: int


class Beat(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine of that name is alive."""

    engine: str


Request = Attach | Step | More | Tally | Detach | Beat


# From a host.


class Attached(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The engine is known.

    Attributes:
        session: As it was asked for.
        targets: int32, the LLM tokens of every whole list, ascending.
        active: The pack that its new requests get.
    """

    session: int
    targets: bytes
    active: NamedPack


class Activated(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """From now on new requests get another pack."""

    session: int
    active: NamedPack


class Refused(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """It is not, or a message of it could not be read."""

    session: int
    reason: str


class Unattached(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Who is it? The host has restarted, or has given it up."""

    session: int


class Said(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the plug-in says."""

    session: int
    packets: Sequence[Packet]


class Counted(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The answer to :class:`Tally`."""

    session: int
    number: int
    counts: dict[str, int]


Reply = Attached | Activated | Refused | Unattached | Said | Counted

_Message = TypeVar("_Message")
_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply | Packet) -> bytes:
    """As bytes."""
    return _encoder.encode(message)


def decode_request(data: bytes) -> Request:
    """What an engine sends.

    Raises:
        WireError: It cannot be read.
    """
    return _decode(_requests, data)


def decode_reply(data: bytes) -> Reply:
    """What a host sends.

    Raises:
        WireError: It cannot be read.
    """
    return _decode(_replies, data)


def _decode(decoder: msgspec.msgpack.Decoder[_Message], data: bytes) -> _Message:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(
            f"a message of {len(data)} bytes cannot be read ({error}); run the same version of onceedit-vllm "
            "for the engine and the plug-in host"
        ) from error


def packets_of(wanted: Sequence[tuple[int, int]], answers: Answers, whole: Sequence[bool]) -> list[Packet]:
    """What a reader answers, ready to travel.

    Args:
        wanted: Handles, each with the number of its output tokens.
        answers: One for each, with whole lists.
        whole: Whose lists are not to be cut.
    """
    is_speaking = [answer.state == State.SPEAKING for answer in answers.of]
    uncut = [flag for flag, speaks in zip(whole, is_speaking, strict=True) if speaks]
    lists = iter(() if answers.lists is None else _lists_in(answers.lists, uncut))
    return [
        Packet(handle, length, answer.state, answer.alpha, next(lists) if speaks else None)
        for (handle, length), answer, speaks in zip(wanted, answers.of, is_speaking, strict=True)
    ]


def _lists_in(lists: Lists, whole: Sequence[bool]) -> Iterator[Listed]:
    """The rows, cut to what travels where they may be."""
    short = lists if all(whole) else cut(lists)
    short, lists = short.to(torch.device("cpu")), lists.to(torch.device("cpu"))
    for i, is_whole in enumerate(whole):
        if is_whole or short.whole:
            yield Listed(None, _bytes_of(lists.mass[i], _MASS), float(lists.tail[i]))
        else:
            listed = short.ids[i] >= 0
            ids, mass = short.ids[i, listed], short.mass[i, listed]
            yield Listed(ids_bytes(ids), _bytes_of(mass, _MASS), float(short.tail[i]))


def lists_of(rows: Sequence[Listed], targets: torch.Tensor) -> Lists | None:
    """The rows together; None where there are none.

    Where all are whole, so is what comes back. Among cut ones a whole list is one of which nothing was cut.

    Args:
        rows: Checked ones.
        targets: (u,) int64, the tokens of a whole list.
    """
    if not rows:
        return None
    tail = torch.tensor([row.tail for row in rows])
    masses = [_array_of(row.mass, _MASS) for row in rows]
    if all(row.ids is None for row in rows):
        return Lists(targets.expand(len(rows), -1), torch.from_numpy(np.stack(masses)), tail, True)
    width = max(map(len, masses))
    ids = np.full((len(rows), width), -1, dtype=np.int64)
    mass = np.zeros((len(rows), width), dtype=np.float32)
    for i, (row, listed) in enumerate(zip(rows, masses, strict=True)):
        ids[i, : len(listed)] = targets if row.ids is None else _array_of(row.ids, _IDS)
        mass[i, : len(listed)] = listed
    return Lists(torch.from_numpy(ids), torch.from_numpy(mass), tail, False)


def silence(num_targets: int) -> Listed:
    """A whole list that says nothing, for a request whose own did not come."""
    return Listed(None, bytes(_MASS.itemsize * num_targets), math.nan)


def ids_tensor(data: bytes) -> torch.Tensor:
    """(n,) int64 of int32 bytes.

    Raises:
        WireError: The bytes are cut off.
    """
    return torch.from_numpy(_array_of(data, _IDS).astype(np.int64))


def ids_bytes(ids: torch.Tensor) -> bytes:
    """Int32 bytes of (n,) tokens."""
    return _bytes_of(ids, _IDS)


def _bytes_of(tensor: torch.Tensor, dtype: np.dtype[Any]) -> bytes:
    return tensor.cpu().numpy().astype(dtype, copy=False).tobytes()


def _array_of(data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(data) % dtype.itemsize:
        raise WireError(f"a tensor of {len(data)} bytes is cut off: its items have {dtype.itemsize}")
    return np.frombuffer(data, dtype)
