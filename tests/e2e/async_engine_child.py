"""vLLM's asynchronous engine in a process of its own, driven by JSON lines. Forked by ``preloaded.py``.

What vLLM's server uses: the engine's core is another process, and with data parallelism several.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any, TextIO

from tests.e2e.engine_child import describe, reply, sampling_params


def main(replies: TextIO) -> None:
    asyncio.run(serve(replies))


async def serve(replies: TextIO) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine_args = json.loads(sys.stdin.readline())
    try:
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_args))
    except Exception as error:
        reply(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    reply(replies, {"runner": "v2" if engine.vllm_config.use_v2_model_runner else "v1"})
    while line := await asyncio.to_thread(sys.stdin.readline):
        reply(replies, await answer(engine, json.loads(line)))
    engine.shutdown()


async def answer(engine: Any, call: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"outputs": await CALLS[call["call"]](engine, call)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


async def generate(engine: Any, call: dict[str, Any]) -> list[dict[str, Any]]:
    """All at once; on the data-parallel ranks that are named, if any are."""
    ranks = call.get("ranks") or [None] * len(call["prompts"])
    asked = zip(call["prompts"], call["params"], ranks, strict=True)
    return await asyncio.gather(*(stream(engine, *each) for each in asked))


async def stream(
    engine: Any, prompt: str, params: dict[str, Any], rank: int | None, leave_after: int | None = None
) -> dict[str, Any]:
    """One request to its end, or until so many pieces have come: then the reader goes away."""
    name, last, pieces = f"async-{os.urandom(6).hex()}", None, 0
    answers = engine.generate(prompt, sampling_params(params), name, data_parallel_rank=rank)
    async for output in answers:
        last, pieces = output, pieces + 1
        if pieces == leave_after:
            await answers.aclose()
            return {"aborted": True}
    return describe(last)


async def abort(engine: Any, call: dict[str, Any]) -> list[dict[str, Any]]:
    """All at once, of which one reader goes away."""
    asked = enumerate(zip(call["prompts"], call["params"], strict=True))
    return await asyncio.gather(
        *(
            stream(engine, prompt, params, None, call["after_steps"] if i == call["which"] else None)
            for i, (prompt, params) in asked
        )
    )


async def rpc(engine: Any, call: dict[str, Any]) -> list[Any]:
    """Of every worker."""
    answers: list[Any] = await engine.collective_rpc(call["method"], args=tuple(call["args"]))
    return answers


CALLS = {"generate": generate, "abort": abort, "rpc": rpc}
