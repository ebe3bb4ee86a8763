"""Frozen settings, one class per room. The only place where a default value is written.

The CLI reads its defaults from here, and vLLM's ``additional_config={"onceedit": {...}}`` is
parsed into :class:`ServingConfig`. Unknown keys are refused.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

#: The kinds made of embeddings, whose maps are dense.
DenseKind = Literal["calibrated", "eq16", "deepen"]
MapKind = Literal["textual", DenseKind]
Matching = Literal["bytes", "string"]
Solver = Literal["exact", "adamw"]
TemplateName = Literal["none", "answer", "zsre", "counterfact"]
ScopeKind = Literal["subject+weight", "weight", "subject"]
WeightKind = Literal["decided", "alpha"]
RequestOverride = Literal["none", "switch", "all"]
#: Where the plug-in runs: in the engine's own process, or in a named actor of Ray that several engines share.
PlugInHost = Literal["local", "ray"]
#: What becomes of an edit that asks what an edit of the pack asks, and wants another answer.
ConflictPolicy = Literal["refuse", "replace", "keep"]
FailurePolicy = Literal["stop", "llm"]
Dataset = Literal["zsre", "counterfact", "counterfact-relations", "qaedit", "halluedit", "jsonl"]
Protocol = Literal["natural-stop", "vanilla", "chat", "teacher-forced"]
Baseline = Literal["llm", "plugin", "lookup", "context", "finetuned", "eq16", "deepen"]

#: The token whose logit at the end of the prompt is the ensemble weight (paper, section 3.1).
WEIGHT_TOKEN = "[WEIGHT]"


def cache_dir() -> Path:
    """Where models and alignments are kept: ``$ONCEEDIT_CACHE``, else the XDG cache folder."""
    chosen = os.environ.get("ONCEEDIT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "onceedit"


class Settings(BaseModel):
    """Immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EditingConfig(Settings):
    """The editing stage (Eq. 5-7)."""

    # What the plug-in reads around a prompt. The default ends every prompt alike, so that a question without
    # its mark, and the gate, are read at the same place.
    template: TemplateName = "answer"
    weight_lambda: float = Field(default=0.8, ge=0.0)
    learning_rate: float = Field(default=2.5e-4, gt=0.0)
    epochs: int = Field(default=9, ge=1)
    seed: int = 0
    # Sequences in a batch; batches are made of texts of similar length.
    batch_size: int = Field(default=24, ge=1)
    # Positives of all edits in one round of examples, spread evenly, but at least `min_copies` each.
    copies_per_round: int = Field(default=112, ge=1)
    min_copies: int = Field(default=5, ge=1)
    unrelated_per_round: int = Field(default=14, ge=0)
    # Share of the layers that are trained, from the top; the embeddings are not.
    trained_share: float = Field(default=0.5, gt=0.0, le=1.0)
    # An answer is learnt when every token of it has at least this probability.
    learnt_probability: float = Field(default=0.9, gt=0.0, lt=1.0)
    # The records' own rephrases and locality prompts are for evaluation unless these say otherwise.
    train_on_rephrases: bool = False
    train_on_locality: bool = False
    # Arithmetic of the training; weights are kept in float32 either way. "auto": bfloat16 where it is fast.
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # Seconds between checkpoints; they are written at the end of a round only.
    checkpoint_seconds: float = Field(default=45.0, ge=0.0)


class AlignmentConfig(Settings):
    """The relative maps of one pair of models."""

    kind: MapKind = "textual"
    matching: Matching = "bytes"
    # `calibrated`: the median probability that an anchor's row gives to the anchor itself.
    self_mass: float = Field(default=0.9, gt=0.0, lt=1.0)

    @property
    def dense_kind(self) -> DenseKind | None:
        """None for ``textual``, which needs tokenizers only."""
        return None if self.kind == "textual" else self.kind


class FusionConfig(Settings):
    """The zero-initialised search (Eq. 9-10); the numbers are DeePEn's public code's."""

    solver: Solver = "exact"
    search_steps: int = Field(default=5, ge=1)
    search_learning_rate: float = Field(default=0.15, gt=0.0)
    # Heaviest tokens of each model that the peak of a dense kind is first looked for with.
    top_k: int = Field(default=16, ge=1, le=256)
    # Rows and columns of a dense kind that are kept once made, in MiB for each model; never more than a
    # hundredth of the matrix.
    line_cache_mib: int = Field(default=64, ge=0)


class PlugInConfig(Settings):
    """What runs the plug-in during decoding."""

    # A Ray host takes dtype, device, memory and max_context from whoever starts it.
    host: PlugInHost = "local"
    # "auto": bfloat16 on a GPU and on a CPU that has instructions for it, else float32. The default is what
    # packs are calibrated in, and what all answers were measured with.
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    device: str = "auto"
    # Keys and values of all texts together, taken when the plug-in is loaded. 1.5 GiB hold 68 texts of 512
    # tokens of SmolLM2-135M in float32 (46,080 bytes a token), or one of Gemma-3-270M's longest.
    kv_cache_bytes: int = Field(default=3 * 2**29, gt=0)
    # Longest text the plug-in reads, in its own tokens; None: what its config allows.
    max_context: int | None = Field(default=None, ge=8)
    # Of the Ray host: its name, the CPU cores it is pinned to (None: as Ray starts it), its share of a GPU,
    # and HOST:PORT to be reached from other machines (None: by a socket file that only this user can open).
    name: str = Field(default="onceedit", min_length=1)
    cpus: tuple[int, ...] | None = Field(default=None, min_length=1)
    num_gpus: float = Field(default=0.0, ge=0.0)
    tcp: str | None = Field(default=None, pattern=r"^[^:\s]+:\d+$")
    # Seconds in which a Ray host has to answer. Soft: later is counted. Hard: later is lost, for the requests
    # concerned only; a request that was never answered before has the third.
    soft_deadline: float = Field(default=0.05, gt=0.0)
    hard_deadline: float = Field(default=1.0, gt=0.0)
    first_deadline: float = Field(default=5.0, gt=0.0)
    attach_deadline: float = Field(default=120.0, gt=0.0)
    # After three failures in a row the host is left alone for so long, then twice as long, up to the longest.
    retry_seconds: float = Field(default=30.0, gt=0.0)
    longest_retry_seconds: float = Field(default=300.0, gt=0.0)


class ServingConfig(Settings):
    """``additional_config["onceedit"]`` of a vLLM engine."""

    pack: Path
    alignment: AlignmentConfig = AlignmentConfig()
    fusion: FusionConfig = FusionConfig()
    plugin: PlugInConfig = PlugInConfig()
    # Which prompts the edits concern. "subject+weight": those that name a subject or alias of an edit and of
    # which [WEIGHT] says so; "weight": [WEIGHT] alone, as in the paper; "subject": all that name one.
    scope: ScopeKind = "subject+weight"
    # By which users' turns are found in a prompt, where the server is given one that is not the tokenizer's:
    # the template or its file, as vLLM takes it.
    chat_template: str | None = None
    # LLM tokens of a prompt, or of a chat's last turn, that count, from its end: subjects are looked for in
    # these, and the plug-in reads no others.
    window: int = Field(default=512, ge=8)
    # The plug-in's weight in Eq. 8 behind an open gate. "decided": 1; "alpha": [WEIGHT]'s, as in the paper.
    weight: WeightKind = "decided"
    # What becomes of an answer that the plug-in was in the middle of when it failed. "stop": it ends there;
    # "llm": the LLM goes on alone, perhaps from half a name. An answer not yet begun is always the LLM's.
    on_failure: FailurePolicy = "stop"
    # Overrides the gate's thresholds that the pack was calibrated to.
    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    # What a single request may decide for itself. "switch": it may do without the edits. "all": it may
    # force the weight or say what is asked too, and so put an edit into any text; over HTTP that is every
    # client. "none": nothing.
    request_override: RequestOverride = "switch"
    # One JSON line per decision (prompt hash, alpha, gated, scope), appended; no prompt text. Whoever has a
    # prompt can find its line.
    decisions_log: Path | None = None
    # A port on which the engine's process shows the metrics itself, for where vLLM's own /metrics cannot; of
    # several engines, engine i takes this port plus i.
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    # Compare the logits of all tensor-parallel ranks after every step. For tests: it costs more than a step.
    check_ranks: bool = False
    cache_dir: Path = Field(default_factory=cache_dir)


class GenerationConfig(Settings):
    """Answers of an offline engine (`onceedit generate`)."""

    max_tokens: int = Field(default=32, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    seed: int | None = None


class EvaluationConfig(Settings):
    """What is asked, and what counts as right (`onceedit eval`)."""

    dataset: Dataset
    # "natural-stop": the target and nothing else, up to a newline, a full stop or the end of sequence.
    # "vanilla": as many tokens as the target has. "chat": through the LLM's own chat template, the new answer
    # is said and the old one is not. "teacher-forced": EasyEdit's, each token given the right ones before it.
    protocol: Protocol = "natural-stop"
    # Records of the pack that are asked, from the first; None: all.
    limit: int | None = Field(default=None, ge=1)
    # Whose figures stand beside.
    baselines: tuple[Baseline, ...] = ()
    # As in :class:`ServingConfig`.
    scope: ScopeKind = "subject+weight"
    weight: WeightKind = "decided"
    threshold: float | None = Field(default=None, ge=0.0, le=1.0)
    # LLM tokens of an answer; None: 32, in a chat 64.
    max_tokens: int | None = Field(default=None, ge=1)
    # Questions that are asked at once.
    batch_size: int = Field(default=64, ge=1)

    @property
    def answer_tokens(self) -> int:
        """LLM tokens of an answer."""
        return self.max_tokens or (64 if self.protocol == "chat" else 32)
