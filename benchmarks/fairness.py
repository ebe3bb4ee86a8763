"""How long a row of one engine waits for the plug-in while another engine has 32 rows there.

    python benchmarks/fairness.py --pack PACK                    # a table
    python benchmarks/fairness.py --pack PACK --out FILE.json    # and the JSON
    python benchmarks/fairness.py --smoke --json                 # toys, few steps, for CI

One plug-in host, as the Ray actor runs it, and two engines' clients, each in a process of its own. The busy
one asks for its next 32 tokens as soon as it has the last ones; the other has one row. What it waits for is
counted in the host's own steps: those for the busy one that were under way between its message and the
answer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from outcome import add_output, as_text, save
from provenance import provenance
from rich.console import Console
from rich.table import Table
from serving import UNRELATED
from toys import make_toys

from onceedit_vllm import EditPack, PlugInConfig
from onceedit_vllm.models import resolve_model
from onceedit_vllm.plugin.packets import Append, Open
from onceedit_vllm.plugin.remote import Endpoint, RemoteClient
from onceedit_vllm.plugin.wire import VocabularyBytes

if TYPE_CHECKING:
    from collections.abc import Iterator

console = Console(stderr=True, width=120)
#: Of the busy engine.
NUM_ROWS = 32
#: Tokens of an answer; then the next prompt is read.
LENGTH = 32
_SPAWN = multiprocessing.get_context("spawn")


class PlugInStep(NamedTuple):
    """One of the host's steps: when (monotonic seconds), and of how many rows."""

    began: float
    ended: float
    rows: int


class Setup(NamedTuple):
    """What every process is told.

    Attributes:
        pack: The pack's folder.
        address: Where the host listens.
        vocabulary: The LLM's, as bytes.
        prompts: Token ids.
    """

    pack: str
    address: str
    vocabulary: bytes
    prompts: list[list[int]]


def main() -> int:
    args = parse_arguments()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.smoke:
            args.pack, (args.llm,) = make_toys(root)
        setup = make_setup(args, root)
        cases = [measure(setup, num_rows, args.steps) for num_rows in (0, NUM_ROWS)]
    result = {**provenance(), "smoke": args.smoke, "llm": "toy" if args.smoke else args.llm}
    result |= {"steps": args.steps, "cases": cases}
    result["targets"] = {"steps_waited_p99": {"wanted": 2, "reached": cases[1]["steps_waited_p99"]}}
    save(result, args.out)
    print_table(result)
    if args.json:
        print(as_text(result), end="")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, help="an EditPack")
    parser.add_argument("--llm", default="gemma-3-270m", help="whose tokens travel")
    parser.add_argument("--steps", type=int, default=500, help="tokens that the lonely row asks for")
    add_output(parser, "toys, few steps")
    args = parser.parse_args()
    if args.smoke:
        args.steps = 40
    elif args.pack is None:
        parser.error("--pack: name an EditPack, such as the demo's")
    return args


def make_setup(args: argparse.Namespace, root: Path) -> Setup:
    from onceedit_vllm.alignment.align import align
    from onceedit_vllm.alignment.surface import Surface
    from onceedit_vllm.alignment.tokenizer_files import load_tokenizer
    from onceedit_vllm.plugin.host import Vocabulary

    pack, folder = EditPack.load(args.pack), resolve_model(args.llm)
    tokenizer = load_tokenizer(folder)
    alignment = align(pack, folder, tokenizer=tokenizer, cache=root / "cache")
    vocabulary = Vocabulary(Surface.of(tokenizer), alignment.carry, alignment.spellings, len(tokenizer))
    lines = [line for line in UNRELATED.read_text(encoding="utf-8").splitlines() if line.strip()]
    prompts = [tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines]
    packed = msgspec.msgpack.encode(VocabularyBytes.of(vocabulary))
    return Setup(str(pack.root), f"ipc://{root}/socket", packed, prompts)


def serve(setup: Setup, end: Connection) -> None:
    """The host's process; in the end it tells of its steps."""
    # One thread: the engines need the other cores, as they would.
    import torch

    from onceedit_vllm.plugin.local import LocalHost
    from onceedit_vllm.plugin.server import PlugInServer

    torch.set_num_threads(1)
    host = LocalHost(EditPack.load(setup.pack), PlugInConfig(device="cpu"))
    steps = watch(host.active.runtime)
    server = PlugInServer(host, setup.address)
    server.start()
    end.send("ready")
    end.recv()
    server.stop()
    end.send([tuple(step) for step in steps])


def watch(runtime: Any) -> list[PlugInStep]:
    """All steps of a plug-in from now on."""
    steps: list[PlugInStep] = []
    step = runtime.step

    def watched(rows: Any) -> Any:
        began = time.monotonic()
        output = step(rows)
        steps.append(PlugInStep(began, time.monotonic(), len(rows)))
        return output

    runtime.step = watched
    return steps


class Asking:
    """An engine's end with some rows, asked for token after token."""

    def __init__(self, setup: Setup, num_rows: int) -> None:
        vocabulary = msgspec.msgpack.decode(setup.vocabulary, type=VocabularyBytes).read()
        # Late answers are what is measured: none is given up.
        config = PlugInConfig(hard_deadline=60.0, first_deadline=60.0)
        self.client = RemoteClient(Endpoint(setup.address), vocabulary, config=config)
        self._prompts, self._num_rows = setup.prompts, num_rows
        self._length, self._turn = LENGTH, 0

    def step(self) -> None:
        """One more token of every row, or the next prompts."""
        handles = range(self._num_rows)
        if self._length == LENGTH:
            self._length, self._turn = 0, self._turn + 1
            prompts = [self._prompts[(self._turn + i) % len(self._prompts)] for i in handles]
            self.client.send([Open(i, prompt, alpha=1.0) for i, prompt in zip(handles, prompts, strict=True)])
        else:
            token = self._prompts[0][self._length % len(self._prompts[0])]
            self.client.send([Append(i, self._length, [token]) for i in handles])
            self._length += 1
        answers = self.client.take([(i, self._length) for i in handles])
        assert len(answers.of) == self._num_rows


def be_busy(setup: Setup, num_rows: int, end: Connection) -> None:
    """The busy engine's process."""
    asking = Asking(setup, num_rows)
    asking.step()
    end.send("ready")
    while not end.poll(0):
        asking.step()
    asking.client.shutdown()


@contextmanager
def process(target: Any, *arguments: Any) -> Iterator[Connection]:
    """One that is ready; ended by a word."""
    ours, theirs = _SPAWN.Pipe()
    child = _SPAWN.Process(target=target, args=(*arguments, theirs))
    child.start()
    try:
        assert ours.recv() == "ready"
        yield ours
    finally:
        child.join(60)
        if child.is_alive():
            child.kill()


def measure(setup: Setup, num_rows: int, steps: int) -> dict[str, Any]:
    """The lonely row beside so many of another engine."""
    with process(serve, setup) as host:
        asking = Asking(setup, 1)
        asking.step()
        with ExitStack() as stack:
            if num_rows:
                busy = stack.enter_context(process(be_busy, setup, num_rows))
            waits = []
            for _ in range(steps):
                began = time.monotonic()
                asking.step()
                waits.append((began, time.monotonic()))
                time.sleep(0.005)  # the engine's own work: without it two clients would take turns
            if num_rows:
                busy.send("end")
        asking.client.shutdown()
        host.send("end")
        log = [PlugInStep(*step) for step in host.recv()]
    return describe(num_rows, waits, log)


def describe(num_rows: int, waits: list[tuple[float, float]], log: list[PlugInStep]) -> dict[str, Any]:
    others = [step for step in log if step.rows > 1]
    waited = [sum(step.began < ended and step.ended > began for step in others) for began, ended in waits]
    milliseconds = [1e3 * (ended - began) for began, ended in waits]
    return {
        "rows_of_the_other": num_rows,
        "wait_p50_ms": round(statistics.median(milliseconds), 2),
        "wait_p99_ms": round(statistics.quantiles(milliseconds, n=100)[98], 2),
        "steps_waited_p50": statistics.median(waited),
        "steps_waited_p99": sorted(waited)[max(0, round(0.99 * len(waited)) - 1)],
        "steps_waited_max": max(waited),
        "plugin_step_p50_ms": round(
            1e3 * statistics.median(step.ended - step.began for step in (others or log)), 2
        ),
    }


def print_table(result: dict[str, Any]) -> None:
    table = Table(*result["cases"][0])
    for case in result["cases"]:
        table.add_row(*map(str, case.values()))
    console.print(table)
    console.print(f"targets: {result['targets']}")


if __name__ == "__main__":
    sys.exit(main())
