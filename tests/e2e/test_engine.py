"""The processor inside real vLLM engines, the same tests on both model runners."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ASIDE, DOUBTS, EDITS, OTHER_TARGET, OUTSIDE
from tests.e2e.engine import Engine, EngineError

pytestmark = pytest.mark.e2e

GREEDY = {"temperature": 0.0, "max_tokens": 12}
FIXED = {**GREEDY, "ignore_eos": True}
PROMPT, TARGET = next(iter(EDITS.items()))


def texts(outputs: list[dict[str, Any]]) -> list[str]:
    return [output["samples"][0]["text"].strip() for output in outputs]


def token_ids(outputs: list[dict[str, Any]]) -> list[list[int]]:
    return [output["samples"][0]["token_ids"] for output in outputs]


def test_the_runner_is_the_one_under_test(edited: Engine, runner: str):
    assert edited.runner == runner


def test_edited_prompts_get_their_targets_and_stop(edited: Engine, plain: Engine):
    outputs = edited.generate(list(EDITS), GREEDY)
    assert texts(outputs) == list(EDITS.values())
    assert {output["samples"][0]["finish_reason"] for output in outputs} == {"stop"}
    assert not set(texts(plain.generate(list(EDITS), GREEDY))) & set(EDITS.values())


def test_prompts_out_of_scope_or_below_the_gate_are_token_and_logprob_identical_in_a_mixed_batch(
    edited: Engine, plain: Engine
):
    untouched = [*ASIDE, *DOUBTS, *OUTSIDE]
    prompts = [p for pair in zip(untouched, EDITS, strict=False) for p in pair] + untouched[len(EDITS) :]
    params = {**FIXED, "logprobs": 3}
    before = edited.counts()
    with_edits, without = edited.generate(prompts, params), plain.generate(prompts, params)
    for prompt, ours, theirs in zip(prompts, with_edits, without, strict=True):
        same = ours["samples"][0] == theirs["samples"][0]
        assert same == (prompt in untouched), prompt
    after = edited.counts()
    counted = {name: after[name] - before.get(name, 0) for name in ("out_of_scope", "bypassed", "gated")}
    outside = len(DOUBTS) + len(OUTSIDE)
    assert counted == {"out_of_scope": outside, "bypassed": len(ASIDE), "gated": len(EDITS)}


def test_the_plugin_never_runs_for_prompts_that_name_no_subject_or_ask_for_something_else(
    edited: Engine, plain: Engine
):
    before = edited.counts()
    prompts, params = [*OUTSIDE, *DOUBTS], {**FIXED, "logprobs": 3}
    assert edited.generate(prompts, params) == plain.generate(prompts, params)
    outside = edited.counts()
    assert outside.get("plugin_forwards", 0) == before.get("plugin_forwards", 0)
    assert outside["out_of_scope"] == before.get("out_of_scope", 0) + len(prompts)
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]
    inside = edited.counts()
    assert inside["plugin_forwards"] > outside.get("plugin_forwards", 0)
    assert (inside["out_of_scope"], inside["gated"]) == (outside["out_of_scope"], outside.get("gated", 0) + 1)


def in_a_chat(asked: str, *before: str) -> str:
    """As the LLM's template renders it, behind a system prompt that names a subject."""
    turns = [("system", "You know all of Norland."), *(("user", text) for text in before), ("user", asked)]
    return (
        "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"
    )


def test_of_a_chat_only_the_last_turn_counts(edited: Engine, plain: Engine):
    before = edited.counts()
    asides = [in_a_chat(text, "And how are you?") for text in OUTSIDE]
    assert token_ids(edited.generate(asides, FIXED)) == token_ids(plain.generate(asides, FIXED))
    outside = edited.counts()
    assert outside.get("plugin_forwards", 0) == before.get("plugin_forwards", 0)
    asked = [in_a_chat(prompt, OUTSIDE[0]) for prompt in EDITS]
    assert texts(edited.generate(asked, GREEDY)) == list(EDITS.values())
    # The turn before it is read with one that names nothing: what is asked there is not the edit.
    assert edited.generate([in_a_chat("Thank you", ASIDE[0])], FIXED)
    inside = edited.counts()
    assert inside["out_of_scope"] == outside["out_of_scope"]
    assert inside["plugin_forwards"] > outside.get("plugin_forwards", 0)


def test_what_is_said_before_the_question_is_not_read(edited: Engine):
    said = [f"My aunt plays the organ. It rains! {prompt}" for prompt in EDITS]
    assert texts(edited.generate(said, GREEDY)) == list(EDITS.values())


def test_of_a_long_prompt_only_the_end_counts(edited: Engine, plain: Engine):
    story = "It rained all day in the old town. " * 6
    before = edited.counts()
    told = [f"{prompt} {story}" for prompt in EDITS]
    assert token_ids(edited.generate(told, FIXED)) == token_ids(plain.generate(told, FIXED))
    outside = edited.counts()
    assert outside.get("plugin_forwards", 0) == before.get("plugin_forwards", 0)
    assert texts(edited.generate([story + prompt for prompt in EDITS], GREEDY)) == list(EDITS.values())


def test_a_request_may_say_what_is_asked(edited: Engine, plain: Engine):
    asked = {**GREEDY, "extra_args": {"onceedit": {"text": PROMPT}}}
    assert texts(edited.generate(OUTSIDE[:2], asked)) == 2 * [TARGET]
    other = {**FIXED, "extra_args": {"onceedit_text": OUTSIDE[0]}}
    assert edited.generate([PROMPT], other) == plain.generate([PROMPT], FIXED)


def test_edits_off_for_a_request(edited: Engine, plain: Engine):
    params = [
        {**FIXED, "extra_args": {"onceedit": False}},
        {**FIXED, "extra_args": {"onceedit": {"alpha": 0.0}}},
    ]
    assert edited.generate([PROMPT] * 2, params) == plain.generate([PROMPT] * 2, FIXED)


def test_forced_alpha_skips_the_gate(edited: Engine, plain: Engine):
    forced = edited.generate(OUTSIDE[:1], {**FIXED, "extra_args": {"onceedit_alpha": 1.0}})
    assert token_ids(forced) != token_ids(plain.generate(OUTSIDE[:1], FIXED))


@pytest.mark.parametrize(
    "bad",
    [{"onceedit": {"alpha": 2}}, {"onceedit": "perhaps"}, {"onceedit_strength": 1}, {"onceedit": {"x": 1}}],
)
def test_bad_request_options_are_refused_and_the_engine_lives(edited: Engine, bad: dict[str, Any]):
    with pytest.raises(EngineError, match=r"VLLMValidationError.*onceedit"):
        edited.generate([PROMPT], {**GREEDY, "extra_args": bad})
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]


def test_beam_search_is_refused_and_the_engine_lives(edited: Engine, plain: Engine):
    assert len(plain.beam_search([PROMPT])) == 1
    with pytest.raises(EngineError, match=r"VLLMValidationError.*beam search"):
        edited.beam_search([PROMPT])
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]


def test_sampling_is_seeded_and_knows_the_edit(edited: Engine, plain: Engine, runner: str):
    # vLLM's top-p kernel of V2 does not run under Triton's interpreter, edits or not.
    top_p = {"top_p": 0.9} if runner == "v1" else {}
    sampled = {"temperature": 0.7, **top_p, "max_tokens": 12, "seed": 7, "ignore_eos": True}
    # Few prompts: on a CPU, vLLM's V1 runner dies of a seeded request in a chunked prefill, edits or not.
    prompts = [PROMPT, *OUTSIDE[:2]]
    once, again = edited.generate(prompts, sampled), edited.generate(prompts, sampled)
    assert token_ids(once) == token_ids(again)
    assert texts(once)[0].startswith(TARGET)
    assert token_ids(once)[1:] == token_ids(plain.generate(prompts, sampled))[1:]


def test_several_samples_of_one_prompt(edited: Engine):
    (output,) = edited.generate([PROMPT], {"temperature": 0.3, "n": 4, "max_tokens": 12, "seed": 1})
    assert [sample["text"].strip() for sample in output["samples"]] == [TARGET] * 4


def test_stop_strings(edited: Engine):
    (output,) = edited.generate([PROMPT], {**GREEDY, "stop": [TARGET[2:4]]})
    assert output["samples"][0]["text"].strip() == TARGET[:2]
    assert output["samples"][0]["finish_reason"] == "stop"


def test_min_tokens_keeps_the_answer_going(edited: Engine):
    (output,) = edited.generate([PROMPT], {**GREEDY, "min_tokens": 10})
    assert len(output["samples"][0]["token_ids"]) >= 10
    assert output["samples"][0]["text"].strip().startswith(TARGET)


def test_logit_bias_is_stronger_than_the_edit(edited: Engine):
    first = token_ids(edited.generate([PROMPT], GREEDY))[0][0]
    (banned,) = token_ids(edited.generate([PROMPT], {**GREEDY, "logit_bias": {str(first): -100.0}}))
    assert banned[0] != first
    (forced,) = token_ids(edited.generate([PROMPT], {**GREEDY, "logit_bias": {str(first + 1): 100.0}}))
    assert forced[0] == first + 1


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ({"regex": "[0-9]{4}"}, r"[0-9]{4}"),
        ({"choice": ["yes", "no"]}, "yes|no"),
        ({"json": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}, None),
    ],
)
def test_a_grammar_is_never_broken_by_an_edit(edited: Engine, grammar: dict[str, Any], pattern: str | None):
    (output,) = edited.generate(
        [PROMPT], {"temperature": 0.0, "max_tokens": 60, "structured_outputs": grammar}
    )
    text = output["samples"][0]["text"]
    if pattern is not None:
        assert re.fullmatch(pattern, text)
    else:
        assert re.match(r'\{\s*("a"?|$)', text)


def test_within_a_grammar_the_edit_is_still_known(edited: Engine):
    choices = {"structured_outputs": {"choice": [" Bergen", f" {TARGET}", " Lund"]}}
    (output,) = edited.generate([PROMPT], {**GREEDY, **choices})
    assert output["samples"][0]["text"].strip() == TARGET


def test_logprobs_do_not_change_the_answer(edited: Engine):
    (output,) = edited.generate([PROMPT], {**GREEDY, "logprobs": 2})
    assert output["samples"][0]["text"].strip() == TARGET
    assert len(output["samples"][0]["logprobs"]) == len(output["samples"][0]["token_ids"])


def test_aborting_one_request_leaves_the_others_right(edited: Engine, plain: Engine):
    prompts = [PROMPT, OUTSIDE[0], list(EDITS)[1], OUTSIDE[1]]
    outputs = edited.abort(prompts, FIXED, which=0, after_steps=3)
    assert outputs[0] == {"aborted": True}
    assert texts(outputs[1:])[1].startswith(EDITS[prompts[2]])
    expected = plain.generate([OUTSIDE[0], OUTSIDE[1]], FIXED)
    assert [outputs[1]["samples"], outputs[3]["samples"]] == [output["samples"] for output in expected]
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]


def test_chunked_prefill_of_a_long_prompt(edited: Engine, plain: Engine, tight_args: dict[str, Any]):
    long_prompt = "It rained all day in the old town. " * 6 + PROMPT
    outputs = edited.generate(
        [long_prompt, OUTSIDE[0]], {**FIXED, "extra_args": {"onceedit": {"alpha": 1.0}}}
    )
    assert len(outputs[0]["prompt_token_ids"]) > tight_args["max_num_batched_tokens"]
    alone = edited.generate([long_prompt], {**FIXED, "extra_args": {"onceedit": {"alpha": 1.0}}})
    assert token_ids(outputs)[0] == token_ids(alone)[0]


def test_preempted_requests_resume_where_they_were(edited: Engine):
    # 8 requests of about 10 + 120 tokens need some 40 blocks of 32; the engine has 24.
    prompts = [*OUTSIDE, *EDITS]
    params = {
        "temperature": 0.0,
        "max_tokens": 120,
        "ignore_eos": True,
        "extra_args": {"onceedit": {"alpha": 0.9}},
    }
    before = edited.metric("vllm:num_preemptions")
    together = edited.generate(prompts, params)
    assert edited.metric("vllm:num_preemptions") > before
    # vLLM preempts who came last; V2's interpreter takes 15 s for each alone.
    alone = [edited.generate([prompt], params)[0] for prompt in prompts[-4:]]
    assert token_ids(together[-4:]) == token_ids(alone)


def test_prefix_caching_changes_nothing(edited: Engine):
    prompt = "Here is what the almanac says of the far north and its towns. " * 2 + PROMPT
    params = {**FIXED, "extra_args": {"onceedit": {"alpha": 1.0}}}
    first, second = edited.generate([prompt], params)[0], edited.generate([prompt], params)[0]
    assert second["num_cached_tokens"] > 0
    assert first["samples"] == second["samples"]


# --- another pack while the engine serves; here, because these engines take a minute to start --------


def wait_until_loaded(engine: Engine) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (status := engine.rpc("onceedit_status"))["state"] == "loading":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return dict(status)


@pytest.fixture
def _first_pack_afterwards(edited: Engine, pack_dir: Path) -> Iterator[None]:
    """The engine is shared with the other tests."""
    yield
    if edited.rpc("onceedit_status")["pack"] != str(pack_dir.resolve()):
        edited.rpc("onceedit_rollback")
        wait_until_loaded(edited)
        edited.rpc("onceedit_activate")


@pytest.mark.usefixtures("_first_pack_afterwards")
def test_running_requests_finish_with_their_pack_and_new_ones_get_the_other(
    edited: Engine, plain: Engine, pack_dir: Path, other_pack_dir: Path
):
    untouched = list(EDITS)[1]
    edited.rpc("onceedit_load", str(other_pack_dir))
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]  # served while it is loading
    assert wait_until_loaded(edited)["state"] == "loaded"
    before = edited.rpc("onceedit_status")["epoch"]
    first, then = [PROMPT, OUTSIDE[0], untouched], [PROMPT, untouched]
    # Two of the answer's tokens are written with the first pack.
    outputs = edited.rpc_midway(first, then, GREEDY, "onceedit_activate", after_steps=3)
    assert texts(outputs)[0] == TARGET
    assert texts(outputs)[2] == EDITS[untouched]
    assert texts(outputs)[3] == OTHER_TARGET
    assert texts(outputs)[4] != EDITS[untouched]  # no edit of the second pack
    expected = plain.generate([OUTSIDE[0], untouched], FIXED)
    assert token_ids(edited.generate([OUTSIDE[0], untouched], FIXED)) == token_ids(expected)
    # V2 does not say that a request has ended: it is noticed after a few steps without it.
    status = edited.rpc("onceedit_status")
    assert (status["epoch"], status["edits"], status["packs_in_memory"]) == (before + 1, 1, 1)
    assert status["pack"] == str(other_pack_dir)
    edited.rpc("onceedit_rollback")
    wait_until_loaded(edited)
    edited.rpc("onceedit_activate")
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]


@pytest.mark.usefixtures("_first_pack_afterwards")
def test_a_pack_that_does_not_fit_is_refused_and_the_old_one_stays(edited: Engine, llm_dir: Path):
    edited.rpc("onceedit_load", str(llm_dir))
    status = wait_until_loaded(edited)
    assert status["state"] == "failed"
    assert "PackError" in status["error"]
    assert "no pack is loaded and waiting" in edited.rpc("onceedit_activate")["refused"]
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]
