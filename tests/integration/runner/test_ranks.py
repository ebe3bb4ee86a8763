"""Two real processes around one real plug-in."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onceedit_vllm.fusion.lists import NUM_LISTED, Lists, cut
from onceedit_vllm.plugin.packets import State
from tests.integration.runner.rank_processes import PATIENCE, on_ranks, serve, start
from tests.unit.fusion.path_cases import same_bits

pytestmark = pytest.mark.integration

pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank saw."""
    return on_ranks(2, serve, tmp_path_factory.mktemp("ranks"))


def check_row(found: Lists, i: int, expected: Lists, j: int) -> None:
    """The same tokens, bits and tail, without what fills them up."""
    listed, wanted = found.ids[i] >= 0, expected.ids[j] >= 0
    assert torch.equal(found.ids[i][listed], expected.ids[j][wanted])
    assert same_bits(found.mass[i][listed], expected.mass[j][wanted])
    assert same_bits(found.tail[i : i + 1], expected.tail[j : j + 1])


def test_all_ranks_read_the_same_bits(seen):
    first, *others = seen
    for other in others:
        for ours, theirs in zip(first["answers"], other["answers"], strict=True):
            assert ours.of == theirs.of
            assert ours.lists.whole == theirs.lists.whole
            for a, b in zip(ours.lists[:3], theirs.lists[:3], strict=True):
                assert same_bits(a, b)
        for a, b in zip(first["whole"][:3], other["whole"][:3], strict=True):
            assert same_bits(a, b)


def test_states_and_alphas_are_the_bare_clients(seen):
    bare, _ = seen[0]["bare"]
    for ours, theirs in zip(seen[0]["answers"], bare, strict=False):
        assert list(ours.of) == list(theirs.of)
    states = [answer.state for answer in seen[0]["answers"][0].of]
    assert states[:2] == [State.SPEAKING] * 2
    assert states[3] == State.UNKNOWN


def test_lists_are_the_bare_clients_cut_or_whole_as_each_row_needs(seen):
    bare, bare_whole = seen[0]["bare"]
    found, said = seen[0]["answers"], [answers.lists for answers in bare]
    # Request 0 is cut; request 1 is whole, beside it or alone.
    check_row(found[0].lists, 0, cut(Lists(said[0].ids[:1], said[0].mass[:1], said[0].tail[:1], True)), 0)
    check_row(found[0].lists, 1, said[0], 1)
    check_row(found[1].lists, 0, said[1], 0)
    check_row(found[1].lists, 1, cut(Lists(said[1].ids[1:], said[1].mass[1:], said[1].tail[1:], True)), 0)
    assert not found[1].lists.whole
    assert found[2].lists.whole
    check_row(found[2].lists, 0, said[2], 0)
    assert seen[0]["whole"].whole
    check_row(seen[0]["whole"], 0, bare_whole[0], 0)
    assert int((found[0].lists.ids[0] >= 0).sum()) == NUM_LISTED < said[0].ids.shape[1]


def test_what_the_first_rank_has_found_is_known_on_all(seen):
    """More of them than the queue between the ranks has room for at once."""
    for rank in seen:
        assert [look.named for look in rank["looks"]] == [(number,) for number in range(20)]
        assert [look.epoch for look in rank["looks"]] == [1] * 10 + [2] * 10


def test_the_plugin_runs_and_counts_on_the_first_rank_only(seen):
    assert seen[0]["tally"]["plugin_forwards"] > 0
    assert [other["tally"] for other in seen[1:]] == [{}] * (len(seen) - 1)


def test_an_error_of_the_host_is_the_same_on_all_ranks_and_the_next_step_goes_well(seen):
    for rank in seen:
        assert rank["error"] == "ModelError: the host is gone"
        assert rank["agreed"] == [True] * 4 + [False]
        assert rank["agreed_after"] == [True, False, False, True]


def test_a_difference_of_logits_is_counted_on_all_ranks(seen):
    for rank in seen:
        assert rank["compared"] == {"ranks_compared": 2, "ranks_differed": 1}


#: The rank, how it fails, and its error.
FAILURES = [
    (rank, *how)
    for rank in (0, 1)
    for how in (
        ("pack", "OnceEditError", "there is no pack"),
        ("memory", "RuntimeError", "Insufficient space"),
    )
]


def test_a_start_that_fails_on_one_rank_fails_on_all_with_its_error():
    by_rank = on_ranks(2, start, [(culprit, how) for culprit, how, _, _ in FAILURES])
    for (culprit, _, error, text), *found in zip(FAILURES, *by_rank, strict=True):
        names = ["ModelError", "ModelError"]
        names[culprit] = error
        assert [name for name, _, _ in found] == names
        for _, said, seconds in found:
            assert text in said
            assert seconds < PATIENCE / 2
        assert f"worker of rank {culprit} cannot start: {error}: " in found[1 - culprit][1]
