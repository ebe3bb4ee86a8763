"""Teacher forcing in real engines of both runners: the winners are what greedy decoding would have said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onceedit_vllm.runner.asking import FORCING, FORCING_PROCESSOR
from tests.e2e.conftest import EDITS, OUTSIDE, PROCESSOR
from tests.e2e.engine import Engine, EngineError

pytestmark = pytest.mark.e2e

PROMPTS = [*EDITS, *OUTSIDE]


@pytest.fixture(scope="module")
def log(work: Path, runner: str) -> Path:
    return work / f"winners-{runner}.jsonl"


@pytest.fixture(scope="module")
def engine(
    runner: str, tight_args: dict[str, Any], pack_dir: Path, work: Path, log: Path
) -> Iterator[Engine]:
    ours = {"pack": str(pack_dir), "cache_dir": str(work / "cache")}
    with Engine(
        runner,
        **tight_args,
        logits_processors=[PROCESSOR, FORCING_PROCESSOR],
        additional_config={"onceedit": ours, FORCING: {"log": str(log)}},
    ) as engine:
        yield engine


def params(num_tokens: int, **extra: Any) -> dict[str, Any]:
    return {"temperature": 0.0, "max_tokens": num_tokens, "ignore_eos": True, "extra_args": extra or None}


def ask(engine: Engine, prompts: list[Any], wanted: Any) -> list[list[int]]:
    """The tokens written for each prompt."""
    return [output["samples"][0]["token_ids"] for output in engine.generate(prompts, wanted)]


def forced(
    engine: Engine, log: Path, prompts: list[str], golds: list[list[int]], **extra: Any
) -> tuple[list[list[int]], list[list[int]]]:
    """What was written, and what would have won."""
    known = len(log.read_text().splitlines()) if log.exists() else 0
    wanted = [
        params(len(gold), **{FORCING: {"key": str(at), "ids": gold}}, **extra)
        for at, gold in enumerate(golds)
    ]
    written = ask(engine, prompts, wanted)
    lines = map(json.loads, log.read_text().splitlines()[known:])
    winners = {int(line["key"]): line["winners"] for line in lines}
    return written, [winners[at] for at in range(len(prompts))]


def test_an_answer_forced_on_itself_wins_everywhere(engine: Engine, log: Path) -> None:
    said = ask(engine, PROMPTS, params(8))
    written, winners = forced(engine, log, PROMPTS, said)
    assert written == said
    assert winners == said


def test_each_winner_is_what_greedy_decoding_says_behind_the_gold_tokens(engine: Engine, log: Path) -> None:
    prompts, gold = OUTSIDE[:3], [70, 71, 72, 73]
    written, winners = forced(engine, log, prompts, [gold] * 3, onceedit=False)
    assert written == [gold] * 3
    ids = [output["prompt_token_ids"] for output in engine.generate(prompts, params(1, onceedit=False))]
    for place in range(len(gold)):
        behind = [{"prompt_token_ids": [*prompt, *gold[:place]]} for prompt in ids]
        greedy = ask(engine, behind, params(1, onceedit=False))
        assert [ids[0] for ids in greedy] == [row[place] for row in winners]


def test_the_edits_win_behind_the_first_tokens_of_their_targets(engine: Engine, log: Path) -> None:
    """The plug-in follows what was forced: it goes on with the target, not with what it had said itself."""
    said = ask(engine, list(EDITS), params(6))
    wrong = [[(ids[0] + 1) % 256, *ids[1:]] for ids in said]
    written, winners = forced(engine, log, list(EDITS), wrong)
    assert written == wrong
    assert [row[0] for row in winners] == [ids[0] for ids in said]


def test_gold_tokens_that_do_not_fit_are_refused(engine: Engine) -> None:
    with pytest.raises(EngineError, match="as many tokens as max_tokens"):
        engine.generate(["a"], params(3, **{FORCING: {"key": "a", "ids": [1]}}))
