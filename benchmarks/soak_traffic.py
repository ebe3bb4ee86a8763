"""Requests of the soak: sent to an engine in this process, a few at a time, and judged one by one."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

#: Of an answer.
MAX_TOKENS = 8
# One in so many requests is given up by whoever asked, one in so many wants its distribution to be seen.
_ABORTED, _SHOWN = 9, 7
# Steps after which a request that is given up is given up: in the middle of its answer.
_ABORT_AFTER = 3


class Request(NamedTuple):
    """What is asked.

    Attributes:
        prompt: The text.
        is_inside: Whether an edit concerns it.
        wants_edits: False: with the edits switched off.
        is_shown: Whether log probabilities are asked for, which takes the plug-in's whole list.
        is_aborted: Whether it is given up in the middle.
    """

    prompt: str
    is_inside: bool
    wants_edits: bool = True
    is_shown: bool = False
    is_aborted: bool = False


class Finished(NamedTuple):
    """A request that ended, and when (monotonic seconds)."""

    request: Request
    token_ids: tuple[int, ...]
    began: float
    ended: float


def mixed(inside: Sequence[str], outside: Sequence[str], start: int, number: int) -> list[Request]:
    """Requests ``start`` to ``start + number`` of an endless row, every other one in scope."""
    requests = []
    for i in range(start, start + number):
        prompts = inside if i % 2 == 0 else outside
        is_shown, is_aborted = i % _SHOWN == 0, i % _ABORTED == 0
        requests.append(
            Request(prompts[i // 2 % len(prompts)], i % 2 == 0, is_shown=is_shown, is_aborted=is_aborted)
        )
    return requests


class Traffic:
    """Sends requests to an engine, so many at a time.

    Args:
        engine: ``vllm.LLM`` with its core in this process.
        at_once: Requests under way.

    Attributes:
        num_aborted: Requests that were given up.
    """

    def __init__(self, engine: Any, at_once: int) -> None:
        self._core, self._at_once = engine.llm_engine, at_once
        self._names = itertools.count()
        self.num_aborted = 0

    def run(
        self, requests: Sequence[Request], after_each: Callable[[int], None] = lambda done: None
    ) -> list[Finished]:
        """Serve them all.

        Args:
            requests: Sent in this order.
            after_each: Told after every step how many have ended.
        """
        waiting, running = iter(requests), dict[str, tuple[Request, float, int]]()
        finished: list[Finished] = []
        done = 0
        self._fill(running, waiting)
        while running:
            outputs = [output for output in self._core.step() if output.finished]
            for output in outputs:
                request, began, _ = running.pop(output.request_id)
                tokens = tuple(output.outputs[0].token_ids)
                finished.append(Finished(request, tokens, began, time.monotonic()))
            done += len(outputs) + self._abort(running)
            self._fill(running, waiting)
            after_each(done)
        return finished

    def _fill(self, running: dict[str, tuple[Request, float, int]], waiting: Iterator[Request]) -> None:
        for request in itertools.islice(waiting, self._at_once - len(running)):
            name = f"soak-{next(self._names)}"
            running[name] = (request, time.monotonic(), 0)
            self._core.add_request(name, request.prompt, _params(request))

    def _abort(self, running: dict[str, tuple[Request, float, int]]) -> int:
        """Give up those whose time has come; how many."""
        gone = []
        for name, (request, began, steps) in running.items():
            running[name] = (request, began, steps + 1)
            if request.is_aborted and steps + 1 == _ABORT_AFTER:
                gone.append(name)
        if gone:
            self._core.abort_request(gone)
        for name in gone:
            del running[name]
        self.num_aborted += len(gone)
        return len(gone)


def _params(request: Request) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0.0,
        max_tokens=MAX_TOKENS,
        logprobs=1 if request.is_shown else None,
        extra_args=None if request.wants_edits else {"onceedit": False},
    )


class Judge:
    """Knows the answers of an engine whose plug-in is well.

    Args:
        traffic: To that engine.
        inside: Prompts that the edits concern.
        outside: Prompts that they do not.
        stop_ids: Tokens at which answers end.

    Attributes:
        inside: The prompts of which the edits' answer is not the LLM's own.
    """

    def __init__(
        self, traffic: Traffic, inside: Sequence[str], outside: Sequence[str], stop_ids: set[int]
    ) -> None:
        self._stop_ids = stop_ids
        prompts = [(prompt, True) for prompt in inside] + [(prompt, False) for prompt in outside]
        self._plain = self._answers(traffic, [Request(*prompt, wants_edits=False) for prompt in prompts])
        self._edited = self._answers(traffic, [Request(*prompt) for prompt in prompts])
        self.inside = [prompt for prompt in inside if self._plain[prompt] != self._edited[prompt]]

    def _answers(self, traffic: Traffic, requests: Sequence[Request]) -> dict[str, tuple[int, ...]]:
        return {each.request.prompt: self._cut(each.token_ids) for each in traffic.run(requests)}

    def _cut(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """Without the end."""
        return tuple(itertools.takewhile(lambda token: token not in self._stop_ids, token_ids))

    def of(self, each: Finished) -> str:
        """What a request got.

        Returns:
            Out of scope ``identical`` to plain vLLM or ``differs``. In scope ``edited``, ``plain`` (the LLM
            alone), ``stopped`` (the edit's answer up to where the plug-in was lost, and ended there), or
            ``mixed``: an answer that nobody would give.
        """
        answer, prompt = self._cut(each.token_ids), each.request.prompt
        if not each.request.is_inside:
            return "identical" if answer == self._plain[prompt] else "differs"
        edited = self._edited[prompt]
        if answer == edited:
            return "edited"
        if answer == self._plain[prompt]:
            return "plain"
        is_ended = len(each.token_ids) > len(answer)
        return "stopped" if is_ended and answer == edited[: len(answer)] else "mixed"

    def count(self, finished: Sequence[Finished]) -> Counter[str]:
        """What they got, by name."""
        return Counter(map(self.of, finished))
