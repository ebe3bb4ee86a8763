"""Only the first rank looks for subjects; what it finds holds on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import ModelError
from onceedit_vllm.runner.rank_messages import Failed, Looked, Verdict, decode, encode
from onceedit_vllm.runner.ranks import OtherRank
from onceedit_vllm.runner.row import Row
from onceedit_vllm.runner.scope import Look, PromptScope
from tests.unit.plugin.fakes import EDITED
from tests.unit.runner.fakes import NAMED, some_scope
from tests.unit.runner.rank_fakes import channels, together
from tests.unit.runner.test_ranks import Ranks, some_logits, taken, told

SIZES = [2, 3]


class Scoped:
    """Makes scopes, and counts them and what they look at."""

    def __init__(self) -> None:
        self.num_made = 0
        self.fails = False

    def __call__(self, edits: Sequence[EditRecord]) -> PromptScope:
        self.num_made += 1
        if self.fails:
            raise RuntimeError("no memory for a matcher")
        return some_scope("subject")


def admitted(ranks: Ranks, prompt_ids: Sequence[int], **fields: Any) -> tuple[list[bool], list[Row]]:
    """What every rank says of a new request, and its row there; all are asked at once."""
    rows = [Row(prompt_ids=prompt_ids, **fields) for _ in ranks.steps]
    calls = [partial(step.admit, row) for step, row in zip(ranks.steps, rows, strict=True)]
    return together(calls), rows


def looks(rows: Sequence[Row]) -> list[Look]:
    return [Look(row.epoch or 0, row.scope, row.named, row.mention_opens) for row in rows]


@pytest.mark.parametrize("size", SIZES)
def test_all_ranks_hold_what_the_first_has_found_and_no_other_makes_a_matcher(size: int) -> None:
    scoped = Scoped()
    ranks = Ranks(size, scope_of=scoped)
    is_in, rows = admitted(ranks, [1, NAMED])
    assert is_in == [True] * size
    assert looks(rows) == [Look(1, "subject", (0,), True)] * size
    is_in, rows = admitted(ranks, [1, 2])
    assert (is_in, looks(rows)) == ([False] * size, [Look(1, "out")] * size)
    assert scoped.num_made == 1
    assert [step.counts["out_of_scope"] for step in ranks.steps] == [1] * size


@pytest.mark.parametrize("size", SIZES)
def test_a_pack_that_is_activated_on_the_first_rank_begins_with_the_same_request_on_all(size: int) -> None:
    ranks, logits = Ranks(size, scope_of=lambda edits: some_scope()), some_logits(2)
    ranks.add([EDITED])
    ranks.client._packs.activate(2)
    ranks.add([EDITED, NAMED])
    assert [[row.epoch for row in rows] for rows in ranks.rows] == [[1, 2]] * size
    assert [client.active.epoch for client in ranks.clients] == [2] * size
    first, *others = ranks.finish(logits)
    assert [int(row.argmax()) for row in first] == [EDITED + 1, NAMED + 1]
    assert all(torch.equal(first, other) for other in others)
    assert all(step.tally()["ranks_differed"] == 0 for step in ranks.steps)


@pytest.mark.parametrize("size", SIZES)
def test_a_request_whose_pack_is_gone_is_looked_at_again_for_all_ranks(size: int) -> None:
    ranks, logits = Ranks(size, scope_of=lambda edits: some_scope()), some_logits(1)
    ranks.add([EDITED])
    ranks.client._packs.activate(2)  # nothing was begun with the first pack yet, so it is let go of
    first, *others = ranks.finish(logits)
    assert [row.epoch for (row,) in ranks.rows] == [2] * size
    assert [step.counts["reopened"] for step in ranks.steps] == [1] * size
    assert int(first[0].argmax()) == EDITED + 1
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("size", SIZES)
def test_a_look_that_fails_on_the_first_rank_fails_on_all_and_the_next_goes_well(size: int) -> None:
    scoped = Scoped()
    scoped.fails = True
    ranks = Ranks(size, scope_of=scoped)
    assert admitted(ranks, [NAMED])[0] == [False] * size
    assert [step.counts["failures"] for step in ranks.steps] == [1] * size
    scoped.fails = False
    is_in, rows = admitted(ranks, [NAMED])
    assert (is_in, {row.scope for row in rows}) == ([True] * size, {"subject"})


def test_the_reason_of_a_failure_is_known_on_all_ranks() -> None:
    ranks = Ranks(2)

    def fail() -> Look:
        raise OSError("no such thing")

    def reason(client: Any) -> str:
        with pytest.raises(ModelError) as raised:
            client.share_look(0, fail)
        return str(raised.value)

    calls: list[Callable[[], str]] = [partial(reason, client) for client in ranks.clients]
    assert together(calls) == ["OSError: no such thing"] * 2


def test_what_is_said_of_other_requests_is_passed_over() -> None:
    first, end = channels(2)
    other = OtherRank(end, deadline=5.0)
    told(first, encode(Looked(0, Look(1, "out"))), encode(Looked(1, Look(1, "weight"))))
    assert other.share_look(1, lambda: Look(9, "out")) == Look(1, "weight")


def test_a_look_at_a_later_request_is_kept_for_it() -> None:
    first, end = channels(2)
    other = OtherRank(end, deadline=5.0)
    told(first, encode(Looked(1, Look(1, "weight"))))
    with pytest.raises(ModelError, match="different requests"):
        other.share_look(0, lambda: Look(9, "out"))
    assert other.share_look(1, lambda: Look(9, "out")) == Look(1, "weight")


@pytest.mark.parametrize("message", [taken(3, (0, 0)), encode(Failed(3, ((0, 0),), "gone"))])
def test_a_step_that_this_rank_has_no_part_in_is_not_waited_for(message: bytes) -> None:
    first, end = channels(2)
    other = OtherRank(end, deadline=5.0)
    told(first, message, encode(Looked(0, Look(1, "out"))))
    assert other.share_look(0, lambda: Look(9, "weight")) == Look(1, "out")
    assert decode(first.hear(1, 1.0)) == Verdict(3, False)


def test_a_look_that_came_too_early_does_not_stand_in_the_way_of_a_step() -> None:
    first, end = channels(2)
    other = OtherRank(end, deadline=5.0)
    told(first, encode(Looked(0, Look(1, "weight"))), taken(1, (0, 0)), encode(Verdict(1, True)))
    assert len(other.take([(0, 0)]).of) == 1
    assert other.agree(True)


def test_a_first_rank_that_looks_at_nothing_is_not_waited_for_without_end() -> None:
    _, end = channels(2)
    with pytest.raises(TimeoutError):
        OtherRank(end, deadline=0.05).share_look(0, lambda: Look(1, "out"))
