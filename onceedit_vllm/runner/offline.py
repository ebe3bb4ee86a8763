"""Answers from an offline vLLM engine, with and without the edits. What the CLI and the demo call."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceedit_vllm.config import GenerationConfig, ServingConfig
from onceedit_vllm.errors import ModelError
from onceedit_vllm.machine import has_fast_bfloat16
from onceedit_vllm.plugin.gate import prompt_key
from onceedit_vllm.runner.decisions import flush_decisions

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams

PROCESSOR = "onceedit_vllm:OnceEditLogitsProcessor"
DEFAULTS = GenerationConfig()
#: Longest text of the engines made here; enough for prompts and answers, small for memory.
LONGEST_TEXT = 2048


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        prompt: What was asked.
        text: The answer of the LLM with the edits.
        token_ids: The answer in LLM tokens, up to and with its end-of-sequence token.
        alpha: The plug-in's weight for this prompt; None where the prompt is out of the edits' scope, so
            that the plug-in was not asked.
        gated: True when the edits took part (alpha reached the gate's threshold).
        plain_text: The answer of the LLM without the edits, None unless compared.
        plain_token_ids: The same in tokens.
    """

    prompt: str
    text: str
    token_ids: list[int]
    alpha: float | None
    gated: bool
    plain_text: str | None = None
    plain_token_ids: list[int] | None = None


#: Alpha and gated, as in :class:`Generation`.
Decision = tuple[float | None, bool]


@dataclass(frozen=True)
class Answer:
    """What an engine wrote.

    Attributes:
        text: Without special tokens.
        token_ids: In LLM tokens, the end of sequence included.
        key: The prompt's name in the log of decisions.
    """

    text: str
    token_ids: list[int]
    key: str


def generate(
    pack: str | Path,
    llm: str | Path,
    prompts: Sequence[str],
    *,
    compare: bool = False,
    max_tokens: int = DEFAULTS.max_tokens,
    temperature: float = DEFAULTS.temperature,
    seed: int | None = DEFAULTS.seed,
    config: ServingConfig | None = None,
    **engine_args: Any,
) -> list[Generation]:
    """Answer prompts with an LLM that knows the pack's edits.

    Every answer runs to ``max_tokens`` inside the engine and is cut at its end-of-sequence token
    afterwards. Plain answers come from the same engine with the edits switched off per request, one pass
    after the other: both passes see the same batch shapes. Kernels round differently at other batch
    sizes, and "unchanged" could not be told from "rounded".

    Args:
        pack: An EditPack folder. Ignored where ``config`` is given.
        llm: The served model: a known name, a folder or a hub id.
        prompts: Texts to continue, as they are (no chat template).
        compare: Also ask the LLM without the edits.
        max_tokens: Longest answer, in LLM tokens.
        temperature: 0 is greedy.
        seed: Makes sampling repeatable; the same in both runs.
        config: Settings of the processor beyond the pack.
        **engine_args: Passed to ``vllm.LLM``.

    Raises:
        OnceEditError: The pack, the model or an option cannot be used.
    """
    from onceedit_vllm.models import resolve_model
    from onceedit_vllm.pack import EditPack

    config = config or ServingConfig(pack=Path(pack))
    EditPack.load(config.pack)
    folder = resolve_model(str(llm))

    from vllm import SamplingParams  # takes seconds: after everything that can be refused at once

    shared: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    params = SamplingParams(**shared, ignore_eos=True)
    off = SamplingParams(**shared, ignore_eos=True, extra_args={"onceedit": False})
    with tempfile.TemporaryDirectory(prefix="onceedit-") as scratch:
        log = Path(scratch) / "decisions.jsonl"
        passes = [params, off] if compare else [params]
        edited, *rest = _run(folder, prompts, passes, processor_args(config, log), engine_args)
        decisions = _read_decisions(log)
    plain = rest[0] if rest else [None] * len(prompts)
    return [
        Generation(
            prompt, answer.text, answer.token_ids, *_decision(decisions, answer), *_plain_fields(before)
        )
        for prompt, answer, before in zip(prompts, edited, plain, strict=True)
    ]


def _decision(decisions: dict[str, Decision], answer: Answer) -> Decision:
    if answer.key not in decisions:
        raise ModelError(
            "The plug-in failed before the gate could decide on every prompt: run again with "
            "VLLM_LOGGING_LEVEL=INFO and read the engine's log for the reason."
        )
    return decisions[answer.key]


def _plain_fields(answer: Answer | None) -> tuple[str | None, list[int] | None]:
    return (None, None) if answer is None else (answer.text, answer.token_ids)


def processor_args(config: ServingConfig, log: Path) -> dict[str, Any]:
    """What an engine is made with, so that its processor logs to `log` and can be switched off."""
    # The pack's place absolute, because the engine's process may stand elsewhere. The switch, because the
    # only requests are those made here, and the plain ones need it.
    pack = config.pack.expanduser().resolve()
    own = config.model_copy(update={"pack": pack, "decisions_log": log, "request_override": "switch"})
    return {
        "logits_processors": [PROCESSOR],
        # JSON, because vLLM hashes it.
        "additional_config": {"onceedit": own.model_dump(mode="json")},
    }


def _read_decisions(log: Path) -> dict[str, Decision]:
    """The decisions of an engine that was closed. Its process wrote them as it ended, if it was another."""
    flush_decisions()
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines()) if log.exists() else []
    return {line["prompt"]: (line["alpha"], line["gated"]) for line in lines}


def _run(
    folder: Path,
    prompts: Sequence[str],
    passes: Sequence[SamplingParams],
    processor_args: dict[str, Any],
    engine_args: Any,
) -> list[list[Answer]]:
    """The answers of each pass over the prompts; nothing is kept from one pass for the next."""
    engine = create_llm(folder, **processor_args, **{"enable_prefix_caching": False, **engine_args})
    try:
        stop_ids = stop_ids_of(engine)
        outputs = [engine.generate(list(prompts), params, use_tqdm=False) for params in passes]
        return [[cut_answer(engine, output, stop_ids) for output in answered] for answered in outputs]
    finally:
        close_llm(engine)


def create_llm(folder: Path, **engine_args: Any) -> LLM:
    """A vLLM engine with settings that start fast and fit a small machine; all can be overridden."""
    from vllm import LLM
    from vllm.platforms import current_platform

    defaults: dict[str, Any] = {
        "dtype": "bfloat16" if has_fast_bfloat16() else "float32",
        "enforce_eager": True,
        "max_model_len": min(LONGEST_TEXT, _context_of(folder)),
        "max_num_seqs": 64,
        "disable_log_stats": True,
    }
    if current_platform.is_cpu():
        # vLLM's own default on a CPU takes a large share of the machine's memory.
        defaults["kv_cache_memory_bytes"] = 1 << 30
        # vLLM gives up on a step after 300 s, which was too little for the first one of 56 chats and a model
        # of 1.5 billion weights on one core.
        defaults["max_num_batched_tokens"] = 2048
    return LLM(model=str(folder), **{**defaults, **engine_args})


def _context_of(folder: Path) -> int:
    """The longest text of a model, by its config; names differ between architectures."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    return int(getattr(config, "max_position_embeddings", None) or LONGEST_TEXT)


def close_llm(engine: LLM) -> None:
    """Stop an engine's processes now, so that the next one finds the memory free."""
    from onceedit_vllm.runner.summary import end_summaries

    # `LLM` has no public close: its engine-core client does the work.
    engine.llm_engine.engine_core.shutdown()
    # An engine may live in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0), whose standard output is for
    # the answer alone by the time it ends.
    end_summaries()
    gc.collect()


def stop_ids_of(engine: LLM) -> set[int]:
    """The tokens at which this LLM's answers end: the tokenizer's and the generation config's."""
    configured = engine.llm_engine.model_config.try_get_generation_config().get("eos_token_id")
    listed = configured if isinstance(configured, list) else [configured]
    return {int(i) for i in [engine.get_tokenizer().eos_token_id, *listed] if i is not None}


def cut_answer(engine: LLM, output: RequestOutput, stop_ids: set[int]) -> Answer:
    """An answer up to its end of sequence."""
    ids = list(output.outputs[0].token_ids)
    end = next((n + 1 for n, token in enumerate(ids) if token in stop_ids), len(ids))
    text = engine.get_tokenizer().decode(ids[:end], skip_special_tokens=True)
    return Answer(text, ids[:end], prompt_key(output.prompt_token_ids or ()))
