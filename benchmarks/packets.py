"""What carries the packets between an engine and a plug-in host: a call of Ray, or a socket.

    python benchmarks/packets.py                  # a table
    python benchmarks/packets.py --json           # the same as JSON on standard output
    python benchmarks/packets.py --smoke --json   # few repeats, for CI
    python benchmarks/packets.py --out FILE       # also keep the JSON

One step of an engine there and back: the new token of each row, answered by a list of k = 64 tokens each. The
host is an actor of a local Ray in both cases and answers at once, so that what is measured is the way. Both
ways carry the very same bytes; encoding and decoding them is part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import zmq
from provenance import provenance
from rich.console import Console
from rich.table import Table

from onceedit_vllm.fusion.lists import NUM_LISTED
from onceedit_vllm.plugin.packets import Append, State
from onceedit_vllm.plugin.wire import (
    Listed,
    Packet,
    Said,
    Step,
    decode_reply,
    decode_request,
    encode,
    ids_bytes,
)

ROWS = (1, 8, 32)


class Answering:
    """An actor that answers every step with the same lists, by a call or over its socket."""

    def __init__(self, address: str) -> None:
        self._context: Any = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(address)
        ids = ids_bytes(torch.arange(NUM_LISTED) * 1000)
        mass = torch.full((NUM_LISTED,), 1 / NUM_LISTED).numpy().tobytes()
        self._listed = Listed(ids, mass, 0.0)
        threading.Thread(target=self._run, daemon=True).start()

    def step(self, data: bytes) -> bytes:
        """What the host would say."""
        request = decode_request(data)
        assert isinstance(request, Step)
        packets = [
            Packet(event.handle, event.start + 1, State.SPEAKING, 1.0, self._listed)
            for event in request.events
            if isinstance(event, Append)
        ]
        return encode(Said(request.session, packets))

    def _run(self) -> None:
        while True:
            name, data = self._socket.recv_multipart()
            self._socket.send_multipart([name, self.step(data)])


def main() -> int:
    args = parse_arguments()
    repeats = 50 if args.smoke else 3000
    cases = measure(repeats)
    result = {**provenance(), "smoke": args.smoke, "k": NUM_LISTED, "repeats": repeats, "cases": cases}
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1)) if args.json else print_table(result)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, help="also write JSON here")
    parser.add_argument("--smoke", action="store_true", help="few repeats")
    return parser.parse_args()


def measure(repeats: int) -> list[dict[str, Any]]:
    """Both ways in turn, so that what else the machine does meets both."""
    import ray

    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{folder}/socket"
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        actor: Any = ray.remote(Answering)
        actor = actor.remote(address)
        context: Any = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(address)

        def by_socket(data: bytes) -> bytes:
            socket.send(data)
            answer: bytes = socket.recv()
            return answer

        def by_ray(data: bytes) -> bytes:
            answer: bytes = ray.get(actor.step.remote(data))
            return answer

        ways: dict[str, Callable[[bytes], bytes]] = {"ray call": by_ray, "socket": by_socket}
        cases = [case for rows in ROWS for case in measure_rows(rows, ways, repeats)]
        socket.close()
        context.term()
        ray.shutdown()
    return cases


def measure_rows(rows: int, ways: dict[str, Callable[[bytes], bytes]], repeats: int) -> list[dict[str, Any]]:
    took: dict[str, list[float]] = {way: [] for way in ways}
    size = 0
    for repeat in range(repeats + 10):
        for way, carry in ways.items():
            began = time.perf_counter()
            answer = carry(encode(Step(1, [Append(row, repeat, [7]) for row in range(rows)])))
            said = decode_reply(answer)
            took[way].append(1e3 * (time.perf_counter() - began))
            assert isinstance(said, Said)
            assert len(said.packets) == rows
            size = len(answer)
    return [
        {"rows": rows, "way": way, "answer_bytes": size, **quantiles(values[10:])}
        for way, values in took.items()
    ]


def quantiles(values: list[float]) -> dict[str, float]:
    """Milliseconds, of all but the first ten."""
    return {
        "p50_ms": round(statistics.median(values), 4),
        "p99_ms": round(statistics.quantiles(values, n=100)[98], 4),
    }


def print_table(result: dict[str, Any]) -> None:
    table = Table(title=f"a step there and back, lists of {result['k']}")
    for column in ("rows", "way", "bytes of the answer", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for case in result["cases"]:
        numbers = (case["answer_bytes"], case["p50_ms"], case["p99_ms"])
        table.add_row(str(case["rows"]), case["way"], *map(str, numbers))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
