"""One offline engine that is asked many batches, with the edits and without. What the evaluation asks."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onceedit_vllm.config import ServingConfig
from onceedit_vllm.errors import ModelError
from onceedit_vllm.runner.decisions import flush_decisions
from onceedit_vllm.runner.offline import (
    Answer,
    close_llm,
    create_llm,
    cut_answer,
    processor_args,
    stop_ids_of,
)

if TYPE_CHECKING:
    from vllm import SamplingParams

#: The key in `additional_config` ({"log": FILE}), and in a request's `extra_args` ({"key": ..., "ids": ...}).
FORCING = "teacher_forcing"
FORCING_PROCESSOR = "onceedit_vllm.runner.forcing:TeacherForcing"


class Decision(NamedTuple):
    """What became of a prompt, as the runner logged it.

    Attributes:
        alpha: The plug-in's; None where it was not asked.
        gated: The edits took part.
        scope: What the subjects said, see :data:`~onceedit_vllm.runner.scope.Verdict`.
    """

    alpha: float | None
    gated: bool
    scope: str


class Prompt(NamedTuple):
    """A prompt in LLM tokens.

    Attributes:
        ids: Special tokens included.
        max_tokens: How many tokens are written; an end of sequence does not end it, so that both passes over
            a batch have the same shapes.
        gold: Forced instead of what wins, if any.
    """

    ids: list[int]
    max_tokens: int
    gold: tuple[int, ...] = ()


class AskingEngine:
    """A vLLM engine with a pack's edits. Use as a context manager.

    Args:
        llm: The LLM's folder.
        config: Of the processor.
        decisions: The log of decisions; it is appended to, and complete once the engine is closed.
        **engine_args: Of ``vllm.LLM``.
    """

    def __init__(self, llm: Path, config: ServingConfig, decisions: Path, **engine_args: Any) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="onceedit-")
        self._winners = Path(self._scratch.name) / "winners.jsonl"
        self._num_read = self._num_asked = 0
        drop_cut_line(decisions)
        args = processor_args(config, decisions)
        args["logits_processors"] = [*args["logits_processors"], FORCING_PROCESSOR]
        args["additional_config"] |= {FORCING: {"log": str(self._winners)}}
        self._engine = create_llm(llm, **args, **{"enable_prefix_caching": False, **engine_args})
        self._stop_ids = stop_ids_of(self._engine)

    def __enter__(self) -> AskingEngine:
        return self

    def __exit__(self, *_: object) -> None:
        close_llm(self._engine)
        flush_decisions()
        self._scratch.cleanup()

    def ask(self, prompts: Sequence[Prompt], *, edits: bool) -> list[Answer]:
        """Greedy answers to one batch, in its order.

        The tokens of a forced prompt are those that would have won at each place.

        Args:
            prompts: All of them are sent at once.
            edits: False asks the LLM alone, by the request's own switch.

        Raises:
            ModelError: A forced answer was not written down.
        """
        from vllm import TokensPrompt

        keys = [str(self._num_asked + at) for at in range(len(prompts))]
        self._num_asked += len(prompts)
        params = [_params_of(prompt, key, edits) for prompt, key in zip(prompts, keys, strict=True)]
        sent = [TokensPrompt(prompt_token_ids=prompt.ids) for prompt in prompts]
        outputs = self._engine.generate(sent, params, use_tqdm=False)
        answers = [cut_answer(self._engine, output, self._stop_ids) for output in outputs]
        winners = self._read_winners()
        return [
            self._as_won(answer, winners.get(key)) if prompt.gold else answer
            for prompt, key, answer in zip(prompts, keys, answers, strict=True)
        ]

    def _as_won(self, answer: Answer, winners: list[int] | None) -> Answer:
        if winners is None or -1 in winners:
            raise ModelError("teacher forcing: an answer was not written down; read the engine's log for why")
        text = self._engine.get_tokenizer().decode(winners, skip_special_tokens=True)
        return Answer(text, winners, answer.key)

    def _read_winners(self) -> dict[str, list[int]]:
        """What was written since the last look; the engine's process has written it before it answers."""
        if not self._winners.exists():
            return {}
        lines = self._winners.read_text(encoding="utf-8").splitlines()
        new, self._num_read = lines[self._num_read :], len(lines)
        return {line["key"]: line["winners"] for line in map(json.loads, new)}


def _params_of(prompt: Prompt, key: str, edits: bool) -> SamplingParams:
    from vllm import SamplingParams

    extra: dict[str, Any] = {} if edits else {"onceedit": False}
    if prompt.gold:
        extra[FORCING] = {"key": key, "ids": list(prompt.gold)}
    tokens = len(prompt.gold) or prompt.max_tokens
    return SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, extra_args=extra or None)


def drop_cut_line(log: Path) -> None:
    """Take off what stands behind the last newline: what is appended would be read as one line with it."""
    if log.exists():
        os.truncate(log, log.read_bytes().rfind(b"\n") + 1)


def read_decisions(log: Path) -> dict[str, Decision]:
    """The decisions in a log, by the prompt's name; a line that was cut off by a stop is none."""
    found = {}
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry["prompt"]] = Decision(entry["alpha"], entry["gated"], entry["scope"])
    return found
