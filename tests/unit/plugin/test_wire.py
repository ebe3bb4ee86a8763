"""What is sent arrives bit for bit, and what cannot be read is an error of the reader's own."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.surface import Surface
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import WireError
from onceedit_vllm.fusion.lists import NUM_LISTED, Lists, cut
from onceedit_vllm.plugin.host import ActivePack, Vocabulary
from onceedit_vllm.plugin.packets import Answer, Answers, Append, Close, Open, State
from onceedit_vllm.plugin.wire import (
    VERSION,
    Activated,
    Attach,
    Attached,
    Beat,
    Counted,
    Detach,
    Listed,
    More,
    NamedPack,
    Packet,
    Refused,
    Said,
    Step,
    Tally,
    Unattached,
    VocabularyBytes,
    decode_reply,
    decode_request,
    encode,
    ids_bytes,
    ids_tensor,
    lists_of,
    packets_of,
    silence,
)

handles = st.integers(0, 2**40)
tokens = st.lists(st.integers(0, 2**31 - 1), max_size=6)
counts = st.integers(0, 2**20)
alphas = st.none() | st.floats(0, 1)
texts = st.text(max_size=9)
float32 = st.floats(width=32, allow_nan=True)

events = st.one_of(
    st.builds(
        Open, handles, tokens, tokens, st.tuples(counts, counts), alphas, st.none() | counts, st.booleans()
    ),
    st.builds(Append, handles, counts, tokens),
    st.builds(Close, handles),
)
packets = st.builds(
    Packet,
    handles,
    counts,
    st.sampled_from(State),
    alphas,
    st.none() | st.builds(Listed, st.none() | st.binary(max_size=12), st.binary(max_size=12), float32),
)
vocabularies = st.builds(
    VocabularyBytes,
    st.sampled_from(["byte-level", "sentencepiece"]),
    st.lists(st.none() | st.binary(max_size=5), max_size=5),
    tokens,
    tokens,
    st.none() | counts,
    st.booleans(),
    *[st.binary(max_size=12)] * 4,
    counts,
)
requests = st.one_of(
    st.builds(Attach, counts, counts, texts, texts, alphas, vocabularies),
    st.builds(Step, counts, st.lists(events, max_size=4)),
    st.builds(More, counts, st.lists(st.tuples(handles, counts), max_size=4)),
    st.builds(Tally, counts, counts),
    st.builds(Detach, counts),
    st.builds(Beat, texts),
)
aliases = st.lists(texts, max_size=2).map(tuple)
named_packs = st.builds(
    NamedPack, counts, st.lists(st.tuples(texts, texts, st.none() | texts, aliases), max_size=3)
)
replies = st.one_of(
    st.builds(Attached, counts, st.binary(max_size=12), named_packs),
    st.builds(Activated, counts, named_packs),
    st.builds(Refused, counts, texts),
    st.builds(Unattached, counts),
    st.builds(Said, counts, st.lists(packets, max_size=4)),
    st.builds(Counted, counts, counts, st.dictionaries(texts, counts, max_size=3)),
)


@given(requests)
def test_a_request_arrives_as_it_was_sent(request_: Any) -> None:
    arrived = decode_request(encode(request_))
    assert type(arrived) is type(request_)
    assert encode(arrived) == encode(request_)
    if not isinstance(request_, Attach):
        assert msgspec.to_builtins(arrived) == msgspec.to_builtins(request_)


@given(replies)
def test_a_reply_arrives_as_it_was_sent(reply: Any) -> None:
    arrived = decode_reply(encode(reply))
    assert type(arrived) is type(reply)
    assert encode(arrived) == encode(reply)


@given(float32)
def test_a_tail_keeps_its_bits(tail: float) -> None:
    (packet,) = travel([Packet(1, 2, State.SPEAKING, 0.1, Listed(b"", b"", tail))])
    assert packet.listed is not None
    same = struct.pack("<f", packet.listed.tail) == struct.pack("<f", tail)
    assert same or (math.isnan(packet.listed.tail) and math.isnan(tail))


@given(st.binary(max_size=40))
def test_no_bytes_are_more_than_an_error(data: bytes) -> None:
    for decode in (decode_request, decode_reply):
        with suppress(WireError):
            encode(decode(data))


@given(requests, st.data())
def test_a_request_that_is_cut_off_is_an_error(request_: Any, data: st.DataObject) -> None:
    whole = encode(request_)
    with pytest.raises(WireError, match="same version"):
        decode_request(whole[: data.draw(st.integers(0, len(whole) - 1))])


def test_a_vocabulary_arrives_as_it_was() -> None:
    surface = Surface(
        "sentencepiece",
        [None, b" a", b"\xff", b""],
        frozenset({0}),
        frozenset({2}),
        0,
        strips_prefix_space=True,
    )
    sent = Vocabulary(surface, torch.tensor([3, -1, 2]), Spellings.of({1: [2, 3], 7: [1]}), 262144)
    attach = Attach(VERSION, 1, "", "", None, VocabularyBytes.of(sent))
    arrived = decode_request(encode(attach))
    assert isinstance(arrived, Attach)
    read = arrived.vocabulary.read()
    assert (read.surface, read.width) == (surface, 262144)
    assert torch.equal(read.carry, sent.carry)
    assert read.spellings.as_lists() == {1: [2, 3], 7: [1]}
    assert {table.dtype for table in (read.carry, read.spellings.ids)} == {torch.int64}


def test_of_a_packs_edits_arrives_what_prompts_are_compared_with() -> None:
    edits = [
        EditRecord(
            id="a", prompt="p", target="t", subject="Oslo", aliases=("Kristiania",), rephrases=("secret",)
        ),
        EditRecord(id="b", prompt="q", target="u"),
    ]
    data = encode(Activated(1, NamedPack.of(ActivePack(7, edits))))
    assert b"secret" not in data
    arrived = decode_reply(data)
    assert isinstance(arrived, Activated)
    epoch, found = arrived.active.read()
    assert epoch == 7
    assert [(edit.prompt, edit.target, edit.subject, edit.aliases) for edit in found] == [
        ("p", "t", "Oslo", ("Kristiania",)),
        ("q", "u", None, ()),
    ]


def test_a_tensor_that_is_cut_off_is_an_error() -> None:
    assert torch.equal(ids_tensor(ids_bytes(torch.tensor([5, -1]))), torch.tensor([5, -1]))
    with pytest.raises(WireError, match="cut off"):
        ids_tensor(b"12345")


# Lists.


def some_lists(n: int, u: int, seed: int, *, peaked: bool = True) -> Lists:
    """Whole lists of every third token."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, u, generator=generator) * (9.0 if peaked else 0.1)
    targets = torch.arange(u) * 3
    return Lists(targets.expand(n, -1), logits.softmax(1), torch.zeros(n), True)


def travel(packets: list[Packet]) -> list[Packet]:
    arrived = decode_reply(encode(Said(1, packets)))
    assert isinstance(arrived, Said)
    return list(arrived.packets)


def rows_of(packets: list[Packet]) -> list[Listed]:
    return [packet.listed for packet in packets if packet.listed is not None]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 300), st.integers(0, 99), st.booleans(), st.data())
def test_lists_arrive_cut_as_they_are_cut_here_or_whole(
    n: int, u: int, seed: int, peaked: bool, data: st.DataObject
) -> None:
    whole = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    lists = some_lists(n, u, seed, peaked=peaked)
    answers = Answers([Answer(State.SPEAKING, 0.5)] * n, lists)
    arrived = travel(packets_of([(i, i) for i in range(n)], answers, whole))
    found = lists_of(rows_of(arrived), lists.ids[0])
    assert found is not None
    short = cut(lists)
    assert found.whole == (all(whole) or short.whole)
    for i in range(n):
        arrived[i].check(u, 3 * u)
        expected = lists if whole[i] or short.whole else short
        kept = expected.ids[i] >= 0
        listed = found.ids[i] >= 0
        assert torch.equal(found.ids[i, listed], expected.ids[i, kept])
        assert torch.equal(found.mass[i, listed], expected.mass[i, kept])
        assert not found.mass[i, ~listed].any()
        assert torch.equal(found.tail[i], expected.tail[i])


def test_a_row_is_cut_the_same_in_any_company() -> None:
    lists = some_lists(6, 500, 1, peaked=False)
    together = packets_of(
        [(i, 0) for i in range(6)], Answers([Answer(State.SPEAKING)] * 6, lists), [False] * 6
    )
    for i, packet in enumerate(together):
        alone = Lists(lists.ids[i : i + 1], lists.mass[i : i + 1], lists.tail[i : i + 1], True)
        assert packets_of([(i, 0)], Answers([Answer(State.SPEAKING)], alone), [False]) == [packet]


def test_only_who_speaks_has_a_list() -> None:
    lists = some_lists(2, 500, 0)
    states = [State.CLOSED, State.SPEAKING, State.SILENT, State.SPEAKING, State.LOST]
    answers = Answers([Answer(state, 0.5) for state in states], lists)
    made = packets_of([(i, 0) for i in range(5)], answers, [True, False, True, True, True])
    assert [packet.listed is not None for packet in made] == [False, True, False, True, False]
    assert [packet.answer for packet in made] == list(answers.of)
    cut_one, whole_one = rows_of(made)
    assert len(cut_one.mass) == len(cut_one.ids or b"") == 4 * NUM_LISTED
    assert whole_one.ids is None
    assert len(encode(made[0])) <= 25
    assert lists_of([], lists.ids[0]) is None


def test_silence_says_nothing_and_breaks_nothing() -> None:
    lists = lists_of([silence(3)], torch.arange(3))
    assert lists is not None
    assert lists.whole
    assert not lists.mass.any()
    assert lists.tail.isnan().all()


@pytest.mark.parametrize(
    ("ids", "mass"),
    [
        (None, [1.0]),
        ([1, 2], [1.0]),
        ([], [1.0]),
        ([9], [1.0]),
        ([-1], [1.0]),
    ],
)
def test_a_list_that_cannot_be_one_is_refused(ids: list[int] | None, mass: list[float]) -> None:
    tokens = None if ids is None else ids_bytes(torch.tensor(ids, dtype=torch.int64))
    listed = Listed(tokens, struct.pack(f"<{len(mass)}f", *mass), 0.0)
    with pytest.raises(WireError, match=r"list of \d"):
        Packet(1, 1, State.SPEAKING, 1.0, listed).check(2, 9)


def test_half_a_number_is_refused() -> None:
    with pytest.raises(WireError, match="cut off"):
        Listed(b"\0\0\0\0", b"\0", 0.0).check(2, 9)


@pytest.mark.parametrize(("state", "listed"), [(State.SPEAKING, None), (State.LOST, Listed(b"", b"", 0.0))])
def test_words_without_a_list_and_a_list_without_words_are_refused(
    state: State, listed: Listed | None
) -> None:
    with pytest.raises(WireError, match="request 1"):
        Packet(1, 1, state, None, listed).check(2, 9)
