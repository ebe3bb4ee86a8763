"""Ranks read one plug-in's answers alike, and a step that fails on one is taken back on all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from onceedit_vllm.config import FusionConfig
from onceedit_vllm.edits import EditRecord
from onceedit_vllm.errors import ModelError
from onceedit_vllm.fusion.fuser import Fuser
from onceedit_vllm.fusion.lists import Lists
from onceedit_vllm.plugin.host import ActivePack, PlugInClient
from onceedit_vllm.plugin.packets import Answers, Event, Open, State
from onceedit_vllm.runner.rank_check import Comparison
from onceedit_vllm.runner.rank_messages import Taken, Verdict, encode
from onceedit_vllm.runner.ranks import FirstRank, OtherRank
from onceedit_vllm.runner.row import Row
from onceedit_vllm.runner.scope import PromptScope
from onceedit_vllm.runner.step import FusionStep
from tests.unit.alignment.toys import toy_alignment
from tests.unit.plugin.fakes import EDITED, EOS, VOCAB, FakeRuntime, some_client
from tests.unit.runner.fakes import FakeFuser
from tests.unit.runner.rank_fakes import ThreadChannel, channels, together

SIZES = [2, 3]


class Ranks:
    """All ranks of an engine, each with a step, around one plug-in that only the first one has."""

    def __init__(
        self,
        size: int,
        fuser: Callable[[], Any] = FakeFuser,
        deadline: float = 20.0,
        scope_of: Callable[[Sequence[EditRecord]], PromptScope] | None = None,
    ) -> None:
        self.runtime = FakeRuntime()
        self.client = some_client(self.runtime, None, FakeRuntime())
        self.channels = channels(size)
        self.clients: list[FirstRank | OtherRank] = [FirstRank(self.client, self.channels[0], True, deadline)]
        self.clients += [OtherRank(channel, True, deadline) for channel in self.channels[1:]]
        self.fusers = [fuser() for _ in range(size)]
        self.steps = [
            FusionStep(client, fuser, scope_of, eos_id=EOS, ranks=client)
            for client, fuser in zip(self.clients, self.fusers, strict=True)
        ]
        self.rows: list[list[Row]] = [[] for _ in range(size)]

    def add(self, prompt_ids: Sequence[int], **fields: Any) -> None:
        for step, rows in zip(self.steps, self.rows, strict=True):
            row = Row(prompt_ids=prompt_ids, **fields)
            assert step.admit(row)
            rows.append(row)

    def finish(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """Every rank's logits after the step."""
        copies = [logits.clone() for _ in self.steps]

        def finish(rank: int) -> None:
            self.steps[rank].finish(copies[rank], list(enumerate(self.rows[rank])))

        together([partial(finish, rank) for rank in range(len(self.steps))])
        return copies

    def write(self, *tokens: int) -> None:
        for rows in self.rows:
            for row, token in zip(rows, tokens, strict=True):
                row.output_ids.append(token)


def some_logits(num_rows: int = 3) -> torch.Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(1))


def alone(prompts: Sequence[Sequence[int]], logits: torch.Tensor, fuser: Any) -> torch.Tensor:
    """What one worker makes of it."""
    step = FusionStep(some_client(FakeRuntime()), fuser, eos_id=EOS)
    fused = logits.clone()
    step.finish(fused, [(i, Row(prompt_ids=prompt)) for i, prompt in enumerate(prompts)])
    return fused


def real_fuser() -> Fuser:
    return Fuser(toy_alignment("textual", plugin_size=VOCAB, llm_size=VOCAB, num_anchors=8), FusionConfig())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fuser", [FakeFuser, real_fuser])
def test_all_ranks_come_to_what_one_would_and_the_plugin_runs_once(size: int, fuser: Any) -> None:
    ranks, logits = Ranks(size, fuser), some_logits()
    prompts = [[EDITED], [1, 2], [EDITED, 3]]
    for prompt in prompts:
        ranks.add(prompt)
    expected = alone(prompts, logits, fuser())
    for found in ranks.finish(logits):
        assert torch.equal(found, expected)
    num_steps = ranks.runtime.num_steps
    ranks.write(3, 4, 5)
    first, *others = ranks.finish(logits)
    assert all(torch.equal(first, other) for other in others)
    assert ranks.runtime.num_steps == num_steps + 1
    for step in ranks.steps:
        tally = step.tally()
        assert (tally["ranks_compared"], tally["ranks_differed"]) == (2, 0)
        assert (tally["gated"], tally["bypassed"]) == (2, 1)
        assert ("texts" in tally) == step.is_first


class BrokenOnce:
    """A fuser that fails when it is told to, after it has written."""

    def __init__(self) -> None:
        self._fuser = FakeFuser()
        self.is_broken = False

    def fuse_rows_inplace(self, *args: Any) -> list[int]:
        found = self._fuser.fuse_rows_inplace(*args)
        if self.is_broken:
            raise RuntimeError("out of memory on this rank")
        return found

    def counts(self) -> Any:
        return self._fuser.counts()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("culprit", [0, 1])
@pytest.mark.parametrize("written", [False, True])
def test_a_step_that_fails_on_one_rank_is_taken_back_on_all(size: int, culprit: int, written: bool) -> None:
    ranks, logits = Ranks(size, BrokenOnce), some_logits()
    ranks.add([EDITED])
    ranks.add([1])
    if written:
        ranks.finish(logits)
        ranks.write(3, 3)
    ranks.fusers[culprit].is_broken = True
    fused = ranks.finish(logits)
    ranks.fusers[culprit].is_broken = False
    expected = logits.clone()
    if written:  # an answer of the edits ends; the row that they do not concern is not followed any more
        expected[0] = -math.inf
        expected[0, EOS] = 0.0
    assert all(torch.equal(found, expected) for found in fused)
    for rows in ranks.rows:
        assert [row.is_stopped for row in rows] == [written, False]
    assert ranks.steps[0].tally()["steps_taken_back"] == 1
    # The next request is served.
    ranks.rows = [[] for _ in ranks.steps]
    ranks.add([EDITED, 2])
    assert [int(found[0].argmax()) for found in ranks.finish(logits)] == [3] * size


class Uncertain(FakeFuser):
    """Wants whole lists for every row, once."""

    def fuse_rows_inplace(self, logits: Any, rows: Any, lists: Lists, *rest: Any) -> list[int]:
        super().fuse_rows_inplace(logits, rows, lists, *rest)
        return list(range(len(rows))) if len(self.calls) % 2 else []


class BrokenAtWhole(Uncertain):
    is_broken = False

    def fuse_rows_inplace(self, logits: Any, rows: Any, lists: Lists, *rest: Any) -> list[int]:
        if self.is_broken:
            raise RuntimeError("out of memory on this rank")
        return super().fuse_rows_inplace(logits, rows, lists, *rest)


@pytest.mark.parametrize("size", SIZES)
def test_uncertain_rows_get_whole_lists_on_all_ranks(size: int) -> None:
    ranks = Ranks(size, Uncertain)
    ranks.add([EDITED])
    for found in ranks.finish(some_logits(1)):
        assert int(found[0].argmax()) == EDITED + 1
    assert all(len(fuser.calls) == 2 for fuser in ranks.fusers)
    assert ranks.steps[0].tally().get("steps_taken_back", 0) == 0


@pytest.mark.parametrize("culprit", [0, 1])
def test_where_one_rank_fails_and_the_other_wants_whole_lists_neither_waits(culprit: int) -> None:
    ranks, logits = Ranks(2, BrokenAtWhole), some_logits(1)
    ranks.add([EDITED])
    ranks.fusers[culprit].is_broken = True
    assert all(torch.equal(found, logits) for found in ranks.finish(logits))
    assert all(row.is_over for rows in ranks.rows for row in rows)


class Gone:
    """A host that has gone away, after it was attached to."""

    active = ActivePack(1, ())

    def send(self, events: Sequence[Event]) -> None: ...

    def take(self, wanted: Sequence[tuple[int, int]]) -> Answers:
        raise ModelError("the host is gone")

    def more(self, handles: Sequence[int]) -> Lists:
        raise ModelError("the host is gone")

    def tally(self) -> dict[str, int]:
        return {}

    def shutdown(self) -> None: ...


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("call", [lambda client: client.take([(0, 0)]), lambda client: client.more([0])])
def test_an_error_of_the_host_is_one_on_all_ranks(size: int, call: Callable[[PlugInClient], Any]) -> None:
    ends = channels(size)
    host: PlugInClient = Gone()
    clients: list[PlugInClient] = [FirstRank(host, ends[0]), *map(OtherRank, ends[1:])]

    def fails(client: PlugInClient) -> bool:
        with pytest.raises(ModelError, match="the host is gone"):
            call(client)
        return True

    assert together([partial(fails, client) for client in clients]) == [True] * size


def test_an_answer_that_came_too_late_is_dropped_on_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = channels(2)
    times = iter([0.0, 61.0])
    monkeypatch.setattr("onceedit_vllm.runner.ranks.time.monotonic", lambda: next(times))
    client = FirstRank(some_client(FakeRuntime()), first)
    with pytest.raises(ModelError, match="61 s, longer than the other ranks"):
        client.take([])


def test_a_first_rank_that_says_nothing_is_not_waited_for_without_end() -> None:
    _, end = channels(2)
    other = OtherRank(end, deadline=0.05)
    with pytest.raises(TimeoutError):
        other.take([(0, 0)])
    assert not other.agree(True)


def test_a_rank_that_says_nothing_is_not_waited_for_without_end() -> None:
    first, _ = channels(2)
    client = FirstRank(some_client(FakeRuntime()), first, deadline=0.05)
    client.take([])
    assert not client.agree(True)


def taken(step: int, *wanted: tuple[int, int]) -> bytes:
    return encode(Taken(step, wanted, tuple((State.UNKNOWN, None) for _ in wanted), None))


def told(first: ThreadChannel, *messages: bytes) -> None:
    for message in messages:
        first.tell(message, 1.0)


def test_a_step_that_a_rank_had_no_part_in_is_passed_over() -> None:
    first, end = channels(2)
    other = OtherRank(end, deadline=5.0)
    told(first, taken(1, (0, 0)), encode(Verdict(1, False)), taken(2, (1, 0)), encode(Verdict(2, True)))
    assert len(other.take([(1, 0)]).of) == 1
    assert other.agree(True)


def test_ranks_that_follow_different_requests_notice_and_take_the_step_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onceedit_vllm.runner.ranks._PATIENCE", 0.05)
    ranks, logits = Ranks(2), some_logits(2)
    ranks.add([EDITED])
    ranks.add([EDITED, 2])
    # What only a broken worker does: it has lost a request that the others have.
    missing = ranks.rows[1].pop()
    fused = ranks.finish(logits)
    assert all(torch.equal(found, logits) for found in fused)
    assert missing.alpha is None
    ranks.rows = [[] for _ in ranks.steps]
    ranks.add([EDITED, 4])
    assert [int(found[0].argmax()) for found in ranks.finish(logits)] == [5, 5]


def test_a_request_that_cannot_be_looked_at_on_one_rank_does_not_shift_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranks, logits = Ranks(2), some_logits(1)
    with monkeypatch.context() as broken:
        broken.setattr(ranks.steps[1], "_look", lambda row: 1 / 0)
        assert [step.admit(Row(prompt_ids=[EDITED])) for step in ranks.steps] == [True, False]
    ranks.add([EDITED])
    assert [int(found[0].argmax()) for found in ranks.finish(logits)] == [EDITED + 1] * 2


def test_different_logits_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    comparisons = [Comparison(channel) for channel in channels(2)]
    logits = some_logits()
    other = logits.clone()
    other[1, 3] = torch.nextafter(other[1, 3], torch.tensor(9.0))
    for second, differs in ((logits, 0), (other, 1)):
        together([partial(comparisons[0].compare, logits), partial(comparisons[1].compare, second)])
        assert [comparison.counts["ranks_differed"] for comparison in comparisons] == [differs] * 2
    assert "logits differ" in caplog.text


def test_whole_rows_are_those_that_ask_for_it_until_they_are_closed() -> None:
    ranks = Ranks(2)
    ranks.add([EDITED], want_search=False)
    ranks.add([EDITED, 2])
    first: Any = ranks.clients[0]
    ranks.finish(some_logits(2))
    assert first._whole == {0}
    for step, rows in zip(ranks.steps, ranks.rows, strict=True):
        step.close(rows[0])
    assert first._whole == set()


def test_the_first_rank_passes_on_what_is_told_and_frees() -> None:
    first, end = channels(2)
    reader = some_client(FakeRuntime())
    client, other = FirstRank(reader, first), OtherRank(end)
    client.send([Open(1, [EDITED], alpha=1.0)])
    other.send([Open(2, [EDITED], alpha=1.0)])
    assert client.tally()["texts"] == 1
    assert other.tally() == {}
    for rank in (client, other):
        rank.shutdown()
    assert client.tally()["texts"] == 0
