"""A vLLM engine in a process of its own, driven by JSON lines. Forked by ``preloaded.py``.

Each runner needs its own environment before vLLM is imported, and vLLM prints to stdout; so the answers
go to a file descriptor of their own.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO


def main(replies: TextIO) -> None:
    from vllm import LLM

    engine_args = json.loads(sys.stdin.readline())
    try:
        engine = LLM(**engine_args)
    except Exception as error:
        reply(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    reply(replies, {"runner": "v2" if engine.llm_engine.vllm_config.use_v2_model_runner else "v1"})
    for line in sys.stdin:
        reply(replies, answer(engine, json.loads(line)))


def answer(engine: Any, call: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"outputs": CALLS[call["call"]](engine, call)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def generate(engine: Any, call: dict[str, Any]) -> list[dict[str, Any]]:
    params = [sampling_params(p) for p in call["params"]]
    outputs = engine.generate(call["prompts"], params, use_tqdm=False)
    return [describe(output) for output in outputs]


def abort(engine: Any, call: dict[str, Any]) -> list[dict[str, Any]]:
    """Start all requests, step a few times, abort one, finish the others."""
    core = engine.llm_engine
    ids = [f"abort-{i}-{os.urandom(4).hex()}" for i in range(len(call["prompts"]))]
    for request_id, prompt, params in zip(ids, call["prompts"], call["params"], strict=True):
        core.add_request(request_id, prompt, sampling_params(params))
    finished: dict[str, dict[str, Any]] = {}
    steps = 0
    while core.has_unfinished_requests():
        if steps == call["after_steps"]:
            core.abort_request([ids[call["which"]]])
        for output in core.step():
            if output.finished:
                finished[output.request_id] = describe(output)
        steps += 1
    return [finished.get(i, {"aborted": True}) for i in ids]


def beam_search(engine: Any, call: dict[str, Any]) -> list[str]:
    from vllm.sampling_params import BeamSearchParams

    params = BeamSearchParams(beam_width=2, max_tokens=4)
    outputs = engine.beam_search([{"prompt": prompt} for prompt in call["prompts"]], params)
    return [output.sequences[0].text for output in outputs]


def metric(engine: Any, call: dict[str, Any]) -> float:
    return sum(m.value for m in engine.get_metrics() if m.name == call["name"])


def rpc_midway(engine: Any, call: dict[str, Any]) -> list[dict[str, Any]]:
    """Start requests, step a few times, call a method of the workers, send others, finish all."""
    core, steps = engine.llm_engine, 0
    finished: dict[str, dict[str, Any]] = {}
    ids = [f"midway-{i}-{os.urandom(4).hex()}" for i in range(len(call["first"]) + len(call["then"]))]
    waiting = list(zip(ids, call["first"] + call["then"], strict=True))
    for request_id, prompt in waiting[: len(call["first"])]:
        core.add_request(request_id, prompt, sampling_params(call["params"]))
    while core.has_unfinished_requests():
        if steps == call["after_steps"]:
            engine.collective_rpc(call["method"])
            for request_id, prompt in waiting[len(call["first"]) :]:
                core.add_request(request_id, prompt, sampling_params(call["params"]))
        finished |= {output.request_id: describe(output) for output in core.step() if output.finished}
        steps += 1
    return [finished[i] for i in ids]


def rpc(engine: Any, call: dict[str, Any]) -> list[Any]:
    """Of every worker."""
    answers: list[Any] = engine.collective_rpc(call["method"], args=tuple(call["args"]))
    return answers


def sampling_params(fields: dict[str, Any]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    fields = dict(fields)
    if "structured_outputs" in fields:
        fields["structured_outputs"] = StructuredOutputsParams(**fields["structured_outputs"])
    if "logit_bias" in fields:
        fields["logit_bias"] = {int(k): v for k, v in fields["logit_bias"].items()}
    return SamplingParams(**fields)


def describe(output: Any) -> dict[str, Any]:
    return {
        "prompt_token_ids": list(output.prompt_token_ids),
        "num_cached_tokens": output.num_cached_tokens,
        "samples": [
            {
                "text": sample.text,
                "token_ids": list(sample.token_ids),
                "finish_reason": sample.finish_reason,
                "logprobs": sample.logprobs
                and [{str(t): v.logprob for t, v in p.items()} for p in sample.logprobs],
            }
            for sample in output.outputs
        ],
    }


def reply(replies: Any, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


CALLS = {
    "generate": generate,
    "abort": abort,
    "beam_search": beam_search,
    "metric": metric,
    "rpc": rpc,
    "rpc_midway": rpc_midway,
}
