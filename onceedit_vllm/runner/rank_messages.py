"""What the ranks of one engine tell each other about a step, as bytes that all of them read alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from onceedit_vllm.fusion.lists import Lists, cut
from onceedit_vllm.plugin.packets import Answer, Answers, State
from onceedit_vllm.runner.scope import Look

#: Instead of a number of tokens: the row has all of them.
_WHOLE = -1
# Numbers are little-endian on the way.
_INT, _FLOAT = "<i4", "<f4"


class PackedLists(msgspec.Struct, frozen=True, array_like=True):
    """Rows of lists without what fills them up, little-endian.

    Attributes:
        lengths: (n,) int32, tokens of each row, -1 for all of them.
        ids: int32, the tokens of the rows that are cut, one row after the other.
        mass: float32, the plug-in's probabilities of all rows, one row after the other.
        tail: (n,) float32.
        all_ids: (u,) int32, the tokens of every whole row; empty where there is none.
    """

    lengths: bytes
    ids: bytes
    mass: bytes
    tail: bytes
    all_ids: bytes


class Taken(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the plug-in's host answered.

    Attributes:
        step: The number of the step.
        wanted: What it was asked: handles, each with the number of its output tokens.
        answers: For each of them the state and alpha.
        lists: Of those that are SPEAKING; None where there is none.
    """

    step: int
    wanted: tuple[tuple[int, int], ...]
    answers: tuple[tuple[State, float | None], ...]
    lists: PackedLists | None


class Whole(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Whole lists of some requests of a step that was told of before."""

    step: int
    lists: PackedLists


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """There is no answer in this step, for the reason given."""

    step: int
    wanted: tuple[tuple[int, int], ...]
    reason: str


class Verdict(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Of one rank to the first: whether its step went well. Of the first to all: whether everybody's did."""

    step: int
    is_good: bool


class Looked(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the first rank has found in a request's prompt.

    Attributes:
        number: Which request it is.
        look: What was found; None where looking failed.
        reason: Why it failed.
    """

    number: int
    look: Look | None
    reason: str = ""


Message = Taken | Whole | Failed | Verdict | Looked

_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """A message as bytes."""
    return msgspec.msgpack.encode(message)


def decode(payload: bytes) -> Message:
    """The message that was encoded.

    Raises:
        msgspec.DecodeError: These bytes are none.
    """
    message: Message = _decoder.decode(payload)
    return message


def pack_lists(lists: Lists, keeps: Sequence[bool]) -> PackedLists:
    """Cut lists for their way to the other ranks; waits for their device.

    Args:
        lists: Whole or cut ones, n rows.
        keeps: (n,), True for a row that is not to be cut.
    """
    rows: dict[int, _Row] = {}
    for keep in (True, False):
        indices = [i for i, kept in enumerate(keeps) if kept is keep]
        part = _rows_of(lists, indices)
        rows.update(zip(indices, _unpadded(part if keep else cut(part)), strict=True))
    ordered = [rows[i] for i in range(len(keeps))]
    lengths, ids, mass, tail = zip(*ordered, strict=True)
    return PackedLists(
        _bytes_of(torch.tensor(lengths), _INT),
        _bytes_of(torch.cat(ids), _INT),
        _bytes_of(torch.cat(mass), _FLOAT),
        _bytes_of(torch.stack(tail), _FLOAT),
        _bytes_of(lists.ids[0], _INT) if _WHOLE in lengths else b"",
    )


def unpack_lists(packed: PackedLists) -> Lists:
    """Lists on the CPU, whole ones where all rows are."""
    lengths = _array_of(packed.lengths, _INT).tolist()
    mass, tail = _array_of(packed.mass, _FLOAT), _array_of(packed.tail, _FLOAT)
    all_ids = _array_of(packed.all_ids, _INT).to(torch.int64)
    if all(length == _WHOLE for length in lengths):
        shape = len(lengths), len(all_ids)
        return Lists(all_ids.expand(shape), mass.view(shape), tail, True)
    cut_ids = _array_of(packed.ids, _INT).to(torch.int64)
    listed = iter(cut_ids.split([length for length in lengths if length != _WHOLE]))
    ids = [all_ids if length == _WHOLE else next(listed) for length in lengths]
    masses = mass.split([len(row) for row in ids])
    return Lists(pad_sequence(ids, True, -1), pad_sequence(masses, True, 0.0), tail, False)


def answers_of(taken: Taken) -> Answers:
    """The host's answers, the same on every rank that reads these bytes."""
    answers = [Answer(state, alpha) for state, alpha in taken.answers]
    return Answers(answers, None if taken.lists is None else unpack_lists(taken.lists))


class _Row(NamedTuple):
    """One row of lists: how many tokens, which (none where it is all), (k,) masses, () tail."""

    length: int
    ids: Tensor
    mass: Tensor
    tail: Tensor


def _rows_of(lists: Lists, indices: list[int]) -> Lists:
    """Some rows; of the tokens of whole lists there is one row of memory still."""
    if len(indices) == len(lists.mass):
        return lists
    ids = lists.ids[:1].expand(len(indices), -1) if lists.whole else lists.ids[indices]
    return Lists(ids, lists.mass[indices], lists.tail[indices], lists.whole)


def _unpadded(lists: Lists) -> list[_Row]:
    ids, mass, tail, is_whole = lists.to(torch.device("cpu"))
    if is_whole:
        return [_Row(_WHOLE, ids[n, :0], mass[n], tail[n]) for n in range(len(mass))]
    lengths = (ids >= 0).sum(dim=1).tolist()
    return [_Row(k, ids[n, :k], mass[n, :k], tail[n]) for n, k in enumerate(lengths)]


def _bytes_of(tensor: Tensor, dtype: str) -> bytes:
    return tensor.cpu().numpy().astype(dtype).tobytes()


def _array_of(data: bytes, dtype: str) -> Tensor:
    """A copy: the tensor may be written to, the bytes may not."""
    found = np.frombuffer(data, dtype)
    return torch.from_numpy(found.astype(found.dtype.newbyteorder("=")))
