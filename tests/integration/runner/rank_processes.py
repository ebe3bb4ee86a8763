"""Ranks as real processes with gloo between them, as vLLM's workers are."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist

from onceedit_vllm.errors import ModelError, OnceEditError
from onceedit_vllm.plugin.host import ActivePack
from onceedit_vllm.plugin.packets import Answers, Append, Close, Event, Open
from onceedit_vllm.runner import rank_group
from onceedit_vllm.runner.rank_check import Comparison
from onceedit_vllm.runner.rank_group import RankGroup
from onceedit_vllm.runner.ranks import FirstRank, OtherRank
from onceedit_vllm.runner.scope import Look

if TYPE_CHECKING:
    from onceedit_vllm.fusion.lists import Lists
    from onceedit_vllm.plugin.host import PlugInClient

Result = TypeVar("Result")


#: Enough for everything here on a slow machine; a rank that waits longer hangs.
PATIENCE = 60.0


def on_ranks(size: int, act: Callable[..., Result], *args: Any) -> list[Result]:
    """What ``act(rank, store, size, *args)`` returns in a process per rank."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(size, mp_context=get_context("spawn")) as pool,
    ):
        store = str(Path(folder) / "store")
        running = [pool.submit(act, rank, store, size, *args) for rank in range(size)]
        return [done.result() for done in running]


def _joined(rank: int, store: str, size: int) -> RankGroup:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=PATIENCE),
    )
    assert dist.group.WORLD is not None
    return RankGroup(dist.group.WORLD)


class Recorder:
    """The bare client, and what it answered."""

    active = ActivePack(1, ())

    def __init__(self, client: PlugInClient) -> None:
        self._client = client
        self.answers: list[Answers] = []
        self.lists: list[Lists] = []
        self.is_gone = False

    def send(self, events: Sequence[Event]) -> None:
        self._client.send(events)

    def take(self, wanted: Sequence[tuple[int, int]]) -> Answers:
        if self.is_gone:
            raise ModelError("the host is gone")
        self.answers.append(self._client.take(wanted))
        return self.answers[-1]

    def more(self, handles: Sequence[int]) -> Lists:
        self.lists.append(self._client.more(handles))
        return self.lists[-1]

    def tally(self) -> dict[str, int]:
        return self._client.tally()

    def shutdown(self) -> None:
        self._client.shutdown()


def serve(rank: int, store: str, size: int, root: Path) -> dict[str, Any]:
    """Some steps with a toy plug-in; what this rank saw, and on the first what the bare client said."""
    group = _joined(rank, store, size)
    recorder = group.in_turns(lambda: _recorder(root) if group.is_first else None)
    group.open()
    group.connect()
    client = OtherRank(group) if recorder is None else FirstRank(recorder, group)
    seen = _steps(client)
    seen["looks"] = [client.share_look(number, partial(_look, rank, number)) for number in range(20)]
    if recorder is not None:
        recorder.is_gone = True
        seen["bare"] = recorder.answers, recorder.lists
    seen["error"] = _error_of(lambda: client.take([(1, 1)]))
    seen["agreed"].append(client.agree(not seen["error"]))
    seen["agreed_after"] = [_agrees_after(client, rank, culprit) for culprit in (None, 0, size - 1, None)]
    seen["compared"] = _compared(group)
    client.shutdown()
    return seen


def _recorder(root: Path) -> Recorder:
    from onceedit_vllm.config import PlugInConfig
    from onceedit_vllm.plugin.local import LocalHost
    from tests.unit.plugin.client_contract import ToyPlugIn

    plug_in = ToyPlugIn(root)
    return Recorder(LocalHost(plug_in.pack, PlugInConfig()).attach(plug_in.vocabulary))


def _steps(client: FirstRank | OtherRank) -> dict[str, Any]:
    client.send([Open(0, [5, 6, 7], alpha=1.0), Open(1, [8, 9], alpha=0.5, whole=True), Open(2, [30, 31])])
    wanted = [[(0, 0), (1, 0), (2, 0), (9, 0)], [(1, 1), (0, 2)], [(1, 1)]]
    answers, agreed = [], []
    for step, asked in enumerate(wanted):
        answers.append(client.take(asked))
        agreed.append(client.agree(True))
        if step == 0:
            client.send([Append(0, 0, [40, 41]), Append(1, 0, [42]), Close(2)])
    client.take([(0, 2)])
    whole = client.more([0])
    agreed.append(client.agree(True))
    return {"answers": answers, "whole": whole, "agreed": agreed, "tally": client.tally()}


def _look(rank: int, number: int) -> Look:
    assert rank == 0, "only the first rank looks"
    return Look(1 + number // 10, "subject", (number,), True)


def _agrees_after(client: FirstRank | OtherRank, rank: int, culprit: int | None) -> bool:
    """A step that goes wrong on one rank after all have read its answer."""
    if isinstance(client, FirstRank):
        client._client.is_gone = False  # type: ignore[attr-defined]
    client.take([(0, 2)])
    return client.agree(rank != culprit)


def _compared(group: RankGroup) -> dict[str, int]:
    comparison = Comparison(group)
    same = torch.arange(12.0).view(3, 4)
    comparison.compare(same)
    comparison.compare(same + (group.rank == 1) * 1e-6)
    return dict(comparison.counts)


def start(
    rank: int, store: str, size: int, failures: Sequence[tuple[int, str]]
) -> list[tuple[str, str, float]]:
    """Starts that fail on one rank, in one way each: this rank's error, its class and text, and seconds."""
    group = _joined(rank, store, size)
    found = []
    for culprit, how in failures:
        group.exchange(b"all are here")
        started = time.monotonic()
        fail = partial(_fail, group, how if rank == culprit else "")
        error = _error_of(partial(group.in_turns, fail))
        name, text = error.split(": ", 1)
        found.append((name, text, time.monotonic() - started))
    return found


def _fail(group: RankGroup, how: str) -> None:
    if how == "pack":
        raise OnceEditError("there is no pack")
    rank_group._CHUNK = rank_group._SMALL_CHUNK = 1 << (50 if how == "memory" else 10)
    group.open()


def _error_of(act: Callable[[], Any]) -> str:
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
