"""An engine under load whose plug-in host is killed again and again: what its requests get, and what is left.

    python benchmarks/soak.py --pack PACK                    # a table
    python benchmarks/soak.py --pack PACK --out FILE.json    # and the JSON
    python benchmarks/soak.py --smoke --json                 # toys and two kills, for CI

A real engine in this process, its plug-in in an actor of a local Ray. Every other request is in scope, some
are given up in the middle, some want log probabilities. The actor is killed by signal 9 at a random moment
while requests are under way; Ray starts it again. In scope an answer must be the edits' or the LLM's own, or
the edits' up to where the plug-in was lost; out of scope it must be plain vLLM's, token for token.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from outcome import add_output, as_text, save
from provenance import provenance
from rich.console import Console
from rich.progress import track
from rich.table import Table
from serving import UNRELATED
from soak_traffic import Finished, Judge, Request, Traffic, mixed
from toys import make_toys

from onceedit_vllm import EditPack
from onceedit_vllm.models import resolve_model
from onceedit_vllm.plugin import ray_host
from onceedit_vllm.plugin.host_actor import socket_folder

# The engine's core in this process, so that what it holds can be counted.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
console = Console(stderr=True, width=120)
_HOST = "soak"
#: Counts that say what was lost and how it came back.
COUNTS = (
    "failures", "reopened", "hard_deadlines", "soft_deadlines", "reconnects", "breaker_openings",
    "more_requests", "kv_full", "retries", "lost", "unparsable",
)  # fmt: skip
# Seconds in which the edits must be back after a kill.
_PATIENCE = 180.0
# Seconds between two questions whether they are: the host needs the machine more.
_PAUSE = 0.3


def main() -> int:
    args = parse_arguments()
    with ExitStack() as stack:
        answer = stack.enter_context(words_aside())
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.smoke:
            args.pack, (args.llm,) = make_toys(root)
        use_scratch(root)
        result = {**provenance(), "smoke": args.smoke, "llm": "toy" if args.smoke else args.llm}
        result |= soak(args, EditPack.load(args.pack))
        result["socket_files_left"] = len(list(socket_folder().glob("[0-9a-f]*")))
        result["targets"] = targets(result)
        save(result, args.out)
        print_table(result)
        if args.json:
            answer.write(as_text(result))
            answer.flush()
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, help="an EditPack; its prompts and rephrases are in scope")
    parser.add_argument("--llm", default="smollm2-135m", help="a known name, a folder or a hub id")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--at-once", type=int, default=16, help="requests under way")
    parser.add_argument("--retry-seconds", type=float, default=1.0, help="the host is left alone for so long")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed")
    add_output(parser, "toys, few requests, two kills")
    args = parser.parse_args()
    if args.smoke:
        args.requests, args.kills, args.at_once = 60, 2, 8
    elif args.pack is None:
        parser.error("--pack: name an EditPack, such as the demo's")
    return args


@contextmanager
def words_aside() -> Iterator[Any]:
    """What vLLM and Ray print goes to standard error; gives standard output for the answer alone."""
    kept = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(kept, "w") as answer:
        yield answer


def use_scratch(root: Path) -> None:
    """Socket files in a folder of this run's own, so that those left behind are this run's."""
    tempfile.tempdir = os.environ["TMPDIR"] = str(root)


def soak(args: argparse.Namespace, pack: EditPack) -> dict[str, Any]:
    """The whole run; the cluster is gone afterwards."""
    import ray

    context: Any = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    engine = make_engine(args, pack)
    try:
        return run(args, pack, engine)
    finally:
        engine.llm_engine.engine_core.shutdown()
        ray_host.stop(_HOST)
        ray.shutdown()


def make_engine(args: argparse.Namespace, pack: EditPack) -> Any:
    from onceedit_vllm.runner.offline import PROCESSOR, create_llm

    plugin = {
        "host": "ray",
        "name": _HOST,
        # On the last core; vLLM's worker binds the first ones on a CPU.
        "cpus": [(os.cpu_count() or 1) - 1],
        "device": "cpu",
        "kv_cache_bytes": 2**28,
        "retry_seconds": args.retry_seconds,
        "longest_retry_seconds": 2 * args.retry_seconds,
    }
    return create_llm(
        resolve_model(args.llm),
        max_num_seqs=args.at_once,
        logits_processors=[PROCESSOR],
        additional_config={"onceedit": {"pack": str(pack.root.resolve()), "plugin": plugin}},
        worker_extension_cls="onceedit_vllm.runner.extension.OnceEditWorkerExtension",
    )


class Kill(NamedTuple):
    """One death of the host: when (monotonic seconds), and when an edit was answered again."""

    at: float
    back: float


def run(args: argparse.Namespace, pack: EditPack, engine: Any) -> dict[str, Any]:
    traffic = Traffic(engine, args.at_once)
    inside = [edit.prompt for edit in pack.edits]
    outside = [line for line in UNRELATED.read_text(encoding="utf-8").splitlines() if line.strip()]
    judge = judge_of(engine, traffic, inside, outside)
    before, counted = held(engine), tally(engine)
    began, per_round = time.monotonic(), -(-args.requests // (args.kills + 1))
    finished, kills, sent, probes = list[Finished](), list[Kill](), 0, 0
    chance = random.Random(args.seed)
    for i in track(range(args.kills + 1), description="killing", console=console):
        requests = mixed(judge.inside, outside, sent, min(per_round, args.requests - sent))
        sent += len(requests)
        if i == args.kills:
            finished += traffic.run(requests)
            continue
        killer = Killer(len(requests) // 2, chance.uniform(0.0, 0.3))
        done = traffic.run(requests, killer.look)
        finished += done
        back, num_probes = wait_for_edits(traffic, judge, done, killer.wait())
        kills.append(Kill(killer.at, back))
        probes += num_probes
    after = {name: value - counted.get(name, 0) for name, value in tally(engine).items()}
    return {
        "requests": sent,
        "kills": len(kills),
        "seconds": round(time.monotonic() - began, 1),
        "finished": len(finished),
        "aborted": traffic.num_aborted,
        "probes": probes,
        "outcomes": dict(judge.count(finished)),
        "counts": {name: after.get(name, 0) for name in COUNTS},
        "seconds_until_back": describe([kill.back - kill.at for kill in kills]),
        "held_before": before,
        "held_after": held(engine),
    }


def judge_of(engine: Any, traffic: Traffic, inside: Sequence[str], outside: Sequence[str]) -> Judge:
    """Once the host has answered everything in time: on a busy machine the first reads may come too late."""
    for _ in range(10):
        failures = tally(engine)["failures"]
        judge = Judge(traffic, inside, outside, stop_ids(engine))
        if tally(engine)["failures"] == failures and judge.inside:
            return judge
    raise RuntimeError("the plug-in host fails before it is killed, or no edit changes an answer")


class Killer:
    """Kills the host once so many requests have ended, a moment later: in the middle of a step.

    Attributes:
        at: When (monotonic seconds).
    """

    def __init__(self, after: int, delay: float) -> None:
        self.at = 0.0
        self._after, self._is_armed = after, True
        self._timer = threading.Timer(delay, self._kill, [ray_host.find(_HOST).pid])

    def look(self, done: int) -> None:
        """Told how many have ended."""
        if self._is_armed and done >= self._after:
            self._is_armed = False
            self._timer.start()

    def wait(self) -> float:
        """Until it is done; the time of the kill."""
        self._timer.join()
        return self.at

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.at = time.monotonic()


def wait_for_edits(
    traffic: Traffic, judge: Judge, finished: Sequence[Finished], killed: float
) -> tuple[float, int]:
    """Ask until an edit is answered again; when that was, and how often it took asking."""
    back = [each.ended for each in finished if each.began > killed and judge.of(each) == "edited"]
    asked = 0
    while not back:
        time.sleep(_PAUSE)
        if time.monotonic() - killed > _PATIENCE:
            raise RuntimeError(f"the edits are not back {_PATIENCE:g} s after the host was killed")
        (each,) = traffic.run([Request(judge.inside[asked % len(judge.inside)], True)])
        back = [each.ended] if judge.of(each) == "edited" else []
        asked += 1
    return min(back), asked


def stop_ids(engine: Any) -> set[int]:
    """At which the LLM's answers end."""
    configured = engine.llm_engine.model_config.try_get_generation_config().get("eos_token_id")
    listed = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in [engine.get_tokenizer().eos_token_id, *listed] if i is not None}


def tally(engine: Any) -> Counter[str]:
    return Counter(engine.collective_rpc("onceedit_tally")[0])


def held(engine: Any) -> dict[str, int]:
    """What must not grow: at the host, in this process, and in the actor's."""
    counts, facts = tally(engine), ray_host.find(_HOST)
    own, actor = psutil.Process(), psutil.Process(facts.pid)
    return {
        "engines_at_host": len(facts.engines),
        "texts": counts["texts"],
        "packs": counts["packs"],
        "kv_bytes": counts["kv_bytes"],
        "kv_free_tokens": counts["kv_free_tokens"],
        **engine.collective_rpc(books)[0],
        "socket_files": len(list(socket_folder().glob("[0-9a-f]*"))),
        "engine_files_open": own.num_fds(),
        "engine_threads": own.num_threads(),
        "engine_mib": own.memory_info().rss >> 20,
        "actor_files_open": actor.num_fds(),
        "actor_threads": actor.num_threads(),
        "actor_mib": actor.memory_info().rss >> 20,
    }


def books(worker: Any) -> dict[str, int]:
    """Requests that the engine's side still knows: its processor, and its end of the host."""
    from onceedit_vllm.runner.extension import processor_of

    processor: Any = processor_of(worker)
    step = processor.tally.__self__
    return {"rows": len(processor._v1._batch), "handles": len(step._plugin._told)}


def describe(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {
        "median": round(statistics.median(seconds), 2),
        "max": round(max(seconds), 2),
        "min": round(min(seconds), 2),
    }


#: Of what is held: it must be the same afterwards. All else is of processes, in which libraries keep things.
EXACT = (
    *("engines_at_host", "texts", "packs", "kv_bytes", "kv_free_tokens", "rows", "handles", "socket_files"),
)


def targets(result: dict[str, Any]) -> dict[str, Any]:
    """What was wanted, and what was reached."""
    outcomes, before, after = result["outcomes"], result["held_before"], result["held_after"]
    unfinished = result["requests"] - result["finished"] - result["aborted"]
    leaked = {name: after[name] - before[name] for name in EXACT if after[name] != before[name]}
    return {
        "wrong_answers": {"wanted": 0, "reached": outcomes.get("differs", 0) + outcomes.get("mixed", 0)},
        "unfinished": {"wanted": 0, "reached": unfinished},
        "leaks": {"wanted": 0, "reached": sum(map(abs, leaked.values())) + result["socket_files_left"]},
    }


def print_table(result: dict[str, Any]) -> None:
    table = Table("held", "before", "after", title=f"{result['requests']} requests, {result['kills']} kills")
    for name, value in result["held_before"].items():
        table.add_row(name, str(value), str(result["held_after"][name]))
    console.print(table)
    for name in ("outcomes", "aborted", "counts", "seconds_until_back", "targets"):
        console.print(f"{name}: {result[name]}")


if __name__ == "__main__":
    sys.exit(main())
