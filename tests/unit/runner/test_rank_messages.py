"""What crosses between ranks arrives with the very bits it had, and rows that are whole stay so."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch

from onceedit_vllm.fusion.lists import NUM_LISTED, Lists, cut
from onceedit_vllm.plugin.packets import Answer, State
from onceedit_vllm.runner.rank_messages import (
    Failed,
    Looked,
    PackedLists,
    Taken,
    Verdict,
    Whole,
    answers_of,
    decode,
    encode,
    pack_lists,
    unpack_lists,
)
from onceedit_vllm.runner.scope import Look
from tests.unit.fusion.path_cases import same_bits

V = 5000
TARGETS = torch.arange(3, 3 + 2 * V, 2)


def whole_lists(n: int, *, flat: bool = False) -> Lists:
    """Peaked rows, of which 64 tokens are enough, or flat ones."""
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(n, V, generator=generator) * (0.1 if flat else 8.0)
    return Lists(TARGETS.expand(n, -1), logits.softmax(dim=1), torch.zeros(n), True)


def travelled(packed: PackedLists) -> Lists:
    message = decode(encode(Whole(7, packed)))
    assert isinstance(message, Whole)
    return unpack_lists(message.lists)


def same(found: Lists, expected: Lists) -> bool:
    return found.whole == expected.whole and all(
        same_bits(ours, theirs) for ours, theirs in zip(found[:3], expected[:3], strict=True)
    )


@pytest.mark.parametrize("n", [1, 2, 5])
def test_whole_lists_arrive_as_they_were(n: int) -> None:
    lists = whole_lists(n)
    lists.tail[0] = math.nan
    found = travelled(pack_lists(lists, [True] * n))
    assert same(found, lists)
    assert found.ids.untyped_storage().nbytes() == TARGETS.nbytes


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("n", [1, 4])
def test_cut_lists_arrive_as_they_were_cut(n: int, flat: bool) -> None:
    lists = whole_lists(n, flat=flat)
    found = travelled(pack_lists(lists, [False] * n))
    assert same(found, cut(lists))
    assert found.ids.shape[1] == NUM_LISTED


def test_beside_rows_that_are_cut_a_whole_one_has_all_its_tokens() -> None:
    lists = whole_lists(3)
    found = travelled(pack_lists(lists, [False, True, False]))
    assert not found.whole
    assert torch.equal(found.ids[1], TARGETS)
    assert same_bits(found.mass[1], lists.mass[1])
    assert found.tail[1] == 0
    others = cut(Lists(lists.ids[[0, 2]], lists.mass[[0, 2]], lists.tail[[0, 2]], True))
    assert same_bits(found.tail[[0, 2]], others.tail)
    for row, expected in zip((0, 2), range(2), strict=True):
        k = others.ids.shape[1]
        assert torch.equal(found.ids[row, :k], others.ids[expected])
        assert same_bits(found.mass[row, :k], others.mass[expected])
        assert found.ids[row, k:].eq(-1).all()


def test_lists_that_came_cut_are_not_whole_for_the_asking() -> None:
    lists = cut(whole_lists(2))
    assert same(travelled(pack_lists(lists, [True, False])), lists)


def test_lists_shorter_than_what_is_cut_to_stay_whole() -> None:
    lists = Lists(torch.arange(5).expand(2, -1), torch.full((2, 5), 0.2), torch.zeros(2), True)
    assert same(travelled(pack_lists(lists, [False, False])), lists)


def test_a_plugin_that_can_say_nothing_travels_too() -> None:
    lists = Lists(torch.empty(1, 0, dtype=torch.int64), torch.empty(1, 0), torch.zeros(1), True)
    found = travelled(pack_lists(lists, [False]))
    assert (found.ids.shape, found.mass.shape, found.whole) == ((1, 0), (1, 0), True)


def test_states_and_alphas_arrive_as_they_were() -> None:
    alphas = [None, 0.1, 1 / 3, 1.0, 0.0, 5e-324]
    answers = tuple(zip(State, alphas, strict=True))
    taken = decode(encode(Taken(1, ((4, 0), (5, 9)), answers, None)))
    assert isinstance(taken, Taken)
    assert taken.wanted == ((4, 0), (5, 9))
    assert answers_of(taken).of == [Answer(state, alpha) for state, alpha in answers]
    assert answers_of(taken).lists is None


@pytest.mark.parametrize(
    "message",
    [
        Failed(3, ((1, 2),), "the reason"),
        Verdict(2, True),
        Verdict(2, False),
        Looked(5, Look(2, "subject", (0, 7), True)),
        Looked(6, Look(2, "subject", (1,), False, [5, 6])),
        Looked(6, None, "the reason"),
    ],
)
def test_what_is_no_answer_arrives_as_it_was(message: Failed | Verdict | Looked) -> None:
    assert decode(encode(message)) == message


def test_other_bytes_are_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b"\x93\xa5Other\x01\x02")
