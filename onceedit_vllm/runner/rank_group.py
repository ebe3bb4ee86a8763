"""The workers of one engine that compute every step together: its tensor-parallel ranks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist

from onceedit_vllm.errors import ModelError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

Made = TypeVar("Made")

#: Room of the queues in shared memory. The first rank's holds lists, and what is longer takes a socket; the
#: others' hold a few bytes.
_CHUNK, _CHUNKS, _SMALL_CHUNK, _SMALL_CHUNKS = 4 << 20, 4, 1 << 10, 64


class RankGroup:
    """One rank's end. Made by all ranks at once; the first one holds the plug-in.

    After :meth:`connect` the first rank writes to all others, and each of them to the first.

    Args:
        processes: The ranks, for communication between CPUs.
    """

    def __init__(self, processes: ProcessGroup) -> None:
        from vllm.distributed.parallel_state import in_the_same_node_as

        self._processes = processes
        self.rank, self.size = dist.get_rank(processes), dist.get_world_size(processes)
        self._near = in_the_same_node_as(processes, 0)
        # By the rank that writes.
        self._queues: dict[int, MessageQueue] = {}

    @classmethod
    def of_engine(cls) -> RankGroup:
        """The tensor-parallel ranks of the engine that this worker belongs to."""
        from vllm.distributed import get_tp_group

        return cls(get_tp_group().cpu_group)

    @property
    def is_first(self) -> bool:
        """True on the rank that holds the plug-in."""
        return self.rank == 0

    def exchange(self, payload: bytes) -> list[bytes]:
        """What every rank gives, by rank. All ranks call it; waits for all."""
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(payload)]), group=self._processes)
        room = max(int(size) for size in sizes) or 1
        mine = torch.zeros(room, dtype=torch.uint8)
        mine[: len(payload)] = torch.tensor(list(payload), dtype=torch.uint8)
        given = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(given, mine, group=self._processes)
        return [row[: int(size)].numpy().tobytes() for row, size in zip(given, sizes, strict=True)]

    def in_turns(self, make: Callable[[], Made]) -> Made:
        """Let the first rank make something, then the others; an error of one is an error of all.

        The others find in a cache what the first has put there. Whoever fails says so before anyone waits
        for it.

        Raises:
            ModelError: Another rank has failed; with its error. What fails here is raised as it is.
        """
        made: list[Made] = []
        for is_my_turn in (self.is_first, not self.is_first):
            error = None
            if is_my_turn:
                try:
                    made.append(make())
                except Exception as raised:
                    error = raised
            reports = self.exchange(b"" if error is None else f"{type(error).__name__}: {error}".encode())
            if error is not None:
                raise error
            for rank, report in enumerate(reports):
                if report:
                    raise ModelError(f"the engine's worker of rank {rank} cannot start: {report.decode()}")
        return made[0]

    def open(self) -> None:
        """Make the queue that this rank writes to.

        Raises:
            RuntimeError: There is not enough shared memory for it.
        """
        from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

        readers = range(1, self.size) if self.is_first else range(1)
        near = [rank for rank in readers if self._near[rank] and self._near[self.rank]]
        chunk, chunks = (_CHUNK, _CHUNKS) if self.is_first else (_SMALL_CHUNK, _SMALL_CHUNKS)
        self._queues[self.rank] = MessageQueue(len(readers), len(near), near, chunk, chunks)

    def connect(self) -> None:
        """Read the queues of the others. All ranks call it, once all have opened theirs."""
        from vllm.distributed.device_communicators.shm_broadcast import Handle, MessageQueue

        handle = dataclasses.asdict(self._queues[self.rank].export_handle())
        handles = self.exchange(json.dumps(handle).encode())
        for writer in range(1, self.size) if self.is_first else range(1):
            self._queues[writer] = MessageQueue.create_from_handle(
                Handle(**json.loads(handles[writer])), self.rank
            )
        for writer in sorted(self._queues):
            self._queues[writer].wait_until_ready()

    def tell(self, payload: bytes, seconds: float) -> None:
        """Write to those that read this rank.

        Raises:
            TimeoutError: They have not read what was written before.
        """
        self._queues[self.rank].enqueue(payload, timeout=seconds)

    def hear(self, writer: int, seconds: float) -> bytes:
        """The next that a rank wrote.

        Raises:
            TimeoutError: It wrote nothing for so long; 0 looks only.
        """
        payload: bytes = self._queues[writer].dequeue(timeout=seconds)
        return payload
