"""Two tensor-parallel ranks with one plug-in between them, on both model runners."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ASIDE, EDITS, OTHER_TARGET, OUTSIDE, PROCESSOR
from tests.e2e.engine import Engine, EngineError
from tests.e2e.test_engine import FIXED, GREEDY, texts, token_ids, wait_until_loaded

pytestmark = [
    pytest.mark.alone,
    pytest.mark.e2e,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two ranks take two cores"),
]

PROMPT, TARGET = next(iter(EDITS.items()))
UNTOUCHED = [*ASIDE, *OUTSIDE]
#: In scope and out of it, side by side, no more than the engine runs at once.
MIXED = [*EDITS, *UNTOUCHED[:5]]
LOGPROBS = {**FIXED, "logprobs": 3}
#: A core each.
ENV = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
Outputs = list[dict[str, Any]]


@pytest.fixture(scope="module")
def args(tight_args: dict[str, Any]) -> dict[str, Any]:
    return {**tight_args, "tensor_parallel_size": 2, "distributed_executor_backend": "mp"}


@pytest.fixture(scope="module")
def plain_outputs(runner: str, args: dict[str, Any]) -> Outputs:
    """What plain vLLM answers on two ranks; its engine is gone before the other one comes."""
    with Engine(runner, ENV, **args) as engine:
        return engine.generate(MIXED, LOGPROBS)


@pytest.fixture(scope="module")
def ranks(
    runner: str, args: dict[str, Any], plain_outputs: Outputs, pack_dir: Path, work: Path
) -> Iterator[Engine]:
    """The edited engine; it compares its ranks' logits after every step."""
    ours = {
        "pack": str(pack_dir),
        "cache_dir": str(work / "cache"),
        "request_override": "all",
        "check_ranks": True,
    }
    with Engine(
        runner,
        ENV,
        **args,
        logits_processors=[PROCESSOR],
        additional_config={"onceedit": ours},
        worker_extension_cls="onceedit_vllm.runner.extension.OnceEditWorkerExtension",
    ) as engine:
        yield engine


@pytest.fixture(autouse=True)
def _ranks_stay_alike(ranks: Engine) -> Iterator[None]:
    """After every test: all steps were compared, none differed, none was taken back."""
    yield
    first, other = ranks.counts_by_rank()
    for counts in (first, other):
        assert counts["ranks_compared"] > 0 or counts.get("gated", 0) == 0
        assert counts["ranks_differed"] == 0
    assert first["ranks_compared"] == other["ranks_compared"]
    assert first.get("steps_taken_back", 0) == first.get("failures", 0) == other.get("failures", 0) == 0


def test_the_runner_is_the_one_under_test(ranks: Engine, runner: str):
    assert ranks.runner == runner


def test_edited_prompts_get_their_targets_and_stop(ranks: Engine):
    outputs = ranks.generate(list(EDITS), GREEDY)
    assert texts(outputs) == list(EDITS.values())
    assert {output["samples"][0]["finish_reason"] for output in outputs} == {"stop"}


def test_beside_edited_prompts_the_others_are_token_and_logprob_identical(
    ranks: Engine, plain_outputs: Outputs
):
    for prompt, ours, theirs in zip(MIXED, ranks.generate(MIXED, LOGPROBS), plain_outputs, strict=True):
        assert (ours["samples"] == theirs["samples"]) == (prompt in UNTOUCHED), prompt


def test_the_plugin_runs_on_the_first_rank_only(ranks: Engine):
    before, _ = ranks.counts_by_rank()
    ranks.generate([PROMPT], FIXED)
    first, other = ranks.counts_by_rank()
    # The prompt, and every token but the last.
    steps = FIXED["max_tokens"]
    assert first["plugin_forwards"] - before.get("plugin_forwards", 0) <= steps + 1
    assert first["texts"] == 0
    assert "plugin_forwards" not in other
    assert first["gated"] == other["gated"]


def test_cut_lists_decide_greedy_rows_and_whole_ones_the_others(ranks: Engine):
    before = ranks.counts()
    assert texts(ranks.generate([PROMPT], GREEDY)) == [TARGET]
    greedy = ranks.counts()
    assert greedy["cut_certified"] > before["cut_certified"]
    sampled = {"temperature": 0.3, "n": 4, "max_tokens": 12, "seed": 1}
    (output,) = ranks.generate([PROMPT], sampled)
    assert [sample["text"].strip() for sample in output["samples"]] == [TARGET] * 4
    assert ranks.counts()["cut_certified"] == greedy["cut_certified"]


def test_a_grammar_is_never_broken_and_the_edit_is_known_in_it(ranks: Engine):
    choices = {"structured_outputs": {"choice": [" Bergen", f" {TARGET}", " Lund"]}}
    assert texts(ranks.generate([PROMPT], {**GREEDY, **choices})) == [TARGET]
    digits = ranks.generate([PROMPT], {**GREEDY, "structured_outputs": {"regex": "[0-9]{4}"}})
    assert len(texts(digits)[0]) == 4
    assert texts(digits)[0].isdigit()


def test_preempted_requests_resume_where_they_were(ranks: Engine):
    params = {**FIXED, "max_tokens": 120, "extra_args": {"onceedit": {"alpha": 0.9}}}
    before = ranks.metric("vllm:num_preemptions")
    prompts = MIXED[::-1]  # vLLM preempts who came last: the edits
    together = ranks.generate(prompts, params)
    assert ranks.metric("vllm:num_preemptions") > before
    alone = [ranks.generate([prompt], params)[0] for prompt in prompts[-4:]]
    assert token_ids(together[-4:]) == token_ids(alone)


def test_an_aborted_request_leaves_the_others_right(ranks: Engine):
    outputs = ranks.abort([PROMPT, list(EDITS)[1]], FIXED, which=0, after_steps=3)
    assert outputs[0] == {"aborted": True}
    assert texts(outputs[1:])[0].startswith(EDITS[list(EDITS)[1]])


def test_another_pack_begins_with_the_same_request_on_all_ranks(
    ranks: Engine, plain_outputs: Outputs, pack_dir: Path, other_pack_dir: Path
):
    ranks.rpc("onceedit_load", str(other_pack_dir))
    assert texts(ranks.generate([PROMPT], GREEDY)) == [TARGET]  # served while it is loading
    assert wait_until_loaded(ranks)["state"] == "loaded"
    first, then = [PROMPT, *UNTOUCHED[:2]], [PROMPT, *UNTOUCHED[2:4]]
    outputs = ranks.rpc_midway(first, then, LOGPROBS, "onceedit_activate", after_steps=3)
    assert texts([outputs[0], outputs[3]])[0].startswith(TARGET)
    assert texts([outputs[0], outputs[3]])[1].startswith(OTHER_TARGET)
    plain = dict(zip(MIXED, plain_outputs, strict=True))
    for prompt, output in zip(first + then, outputs, strict=True):
        assert (output["samples"] == plain[prompt]["samples"]) == (prompt in UNTOUCHED), prompt
    ranks.rpc("onceedit_rollback")
    assert wait_until_loaded(ranks)["state"] == "loaded"
    status, nothing = ranks.rpc_by_rank("onceedit_activate")
    assert (status["pack"], status["packs_in_memory"], nothing) == (str(pack_dir.resolve()), 1, None)
    assert texts(ranks.generate(list(EDITS), GREEDY)) == list(EDITS.values())


def test_a_call_that_is_refused_leaves_the_next_ones_answers_right(ranks: Engine, llm_dir: Path):
    """It reads the answers of several workers one after the other, and stops at an error."""
    for _ in range(2):
        status, nothing = ranks.rpc_by_rank("onceedit_activate")
        assert "no pack is loaded and waiting" in status["refused"]
        assert nothing is None
    ranks.rpc("onceedit_load", str(llm_dir))
    assert "PackError" in wait_until_loaded(ranks)["error"]
    assert [set(counts) >= {"gated"} for counts in ranks.counts_by_rank()] == [True, True]
    assert texts(ranks.generate([PROMPT], GREEDY)) == [TARGET]


def test_a_pack_that_cannot_be_used_ends_the_start_with_its_error(
    args: dict[str, Any], runner: str, work: Path, plain_outputs: Outputs
):
    if runner == "v2":
        pytest.skip("the ranks start alike on both runners")
    ours = {"pack": str(work / "no-pack"), "cache_dir": str(work / "cache")}
    with pytest.raises(EngineError, match="no-pack"):
        Engine(runner, ENV, **args, logits_processors=[PROCESSOR], additional_config={"onceedit": ours})
