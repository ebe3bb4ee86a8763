"""The joint objective of the editing stage (Eq. 5-7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from onceedit_vllm.editing.batches import IGNORED, Batch, model_inputs
from onceedit_vllm.evidence import weigh_all

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.editing.plugin_model import EditablePlugIn


class Forward(NamedTuple):
    """What the objective and the probes need of a forward pass.

    Attributes:
        log_probs: (B, K, V) float32, without [WEIGHT], as the plug-in is served.
        gate_logits: (B,) float32, the [WEIGHT] logit at the last token of the prompt.
    """

    log_probs: Tensor
    gate_logits: Tensor


class Losses(NamedTuple):
    """The parts of Eq. 7, each a scalar; the gate's is of both numbers that thresholds are for."""

    total: Tensor
    generation: Tensor
    gate: Tensor


def run_forward(plugin: EditablePlugIn, batch: Batch) -> Forward:
    """Run the plug-in over a batch; of its logits only the last K positions are made."""
    kept = batch.labels.shape[1]
    with plugin.arithmetic():
        logits: Tensor = plugin.model(**model_inputs(batch, plugin.model)).logits[:, -kept:].float()
    rows = torch.arange(logits.shape[0], device=logits.device)
    gate_logits = logits[rows, batch.gate_position, plugin.weight_token_id]
    column = torch.zeros(logits.shape[-1], device=logits.device)
    column[plugin.weight_token_id] = -torch.inf
    return Forward(functional.log_softmax(logits + column, dim=-1), gate_logits)


def answer_log_probs(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each label, (B, K) float32; 0 where nothing is learnt."""
    known = labels != IGNORED
    picked = log_probs.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return torch.where(known, picked, torch.zeros_like(picked))


def joint_loss(forward: Forward, batch: Batch, weight_lambda: float) -> Losses:
    """L_edit = L_gen + lambda * L_weight (Eq. 7).

    L_gen (Eq. 5) is the mean over the answers of their mean token loss, so that long answers
    count no more than short ones; L_weight (Eq. 6) the mean over all texts of the batch.

    Served behind a scope by subject, the gate compares not [WEIGHT] alone, but the evidence (see
    :mod:`onceedit_vllm.evidence`). So for a text that names an edit L_weight is the mean of the losses of
    both: a question that asks for something else must not be answered with the edit's answer either.
    """
    lengths = (batch.labels != IGNORED).sum(-1)
    sums = -answer_log_probs(forward.log_probs, batch.labels).sum(-1)
    per_answer = sums / lengths.clamp_min(1)
    generation = per_answer.sum() / (lengths > 0).sum().clamp_min(1)
    rows = torch.arange(len(batch.gate_position), device=batch.gate_position.device)
    log_probs = forward.log_probs[rows, batch.gate_position]
    evidence = weigh_all(forward.gate_logits, log_probs, batch.beginning)
    gate = (_gate_loss(forward.gate_logits, batch) + _gate_loss(evidence, batch)) / 2
    return Losses(generation + weight_lambda * gate, generation, gate)


def _gate_loss(logits: Tensor, batch: Batch) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, batch.gate_label)
