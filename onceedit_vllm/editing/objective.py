"""The joint objective of the editing stage (Eq. 5-7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from onceedit_vllm.editing.batches import IGNORED, Batch, logits_at_places
from onceedit_vllm.evidence import weigh_all

if TYPE_CHECKING:
    from torch import Tensor

    from onceedit_vllm.editing.plugin_model import EditablePlugIn


class Forward(NamedTuple):
    """What the objective and the probes need of a forward pass.

    Attributes:
        log_probs: (N, V) float32 at the places of the batch, without [WEIGHT], as the plug-in is served.
        gate_logits: (B,) float32, the [WEIGHT] logit at the last token of each prompt.
    """

    log_probs: Tensor
    gate_logits: Tensor


class Losses(NamedTuple):
    """The parts of Eq. 7, each a scalar; the gate's is of both numbers that thresholds are for."""

    total: Tensor
    generation: Tensor
    gate: Tensor


def run_forward(plugin: EditablePlugIn, batch: Batch) -> Forward:
    """Run the plug-in over a batch."""
    with plugin.arithmetic():
        logits = logits_at_places(plugin.model, batch).float()
    column = torch.zeros(logits.shape[-1], device=logits.device)
    column[plugin.weight_token_id] = -torch.inf
    gate_logits = logits[batch.gate, plugin.weight_token_id]
    return Forward(functional.log_softmax(logits + column, dim=-1), gate_logits)


def answer_log_probs(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of each label, (N,) float32; 0 where nothing is learnt."""
    picked = log_probs.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return torch.where(labels != IGNORED, picked, torch.zeros_like(picked))


def missed_labels(log_probs: Tensor, labels: Tensor) -> Tensor:
    """1 where another token is likelier than the label, (N,) float32; 0 where nothing is learnt."""
    return ((log_probs.argmax(-1) != labels) & (labels != IGNORED)).float()


def mean_answer_loss(log_probs: Tensor, batch: Batch) -> Tensor:
    """Eq. 5: the mean over the answers of their mean token loss; 0 where there is none."""
    known = (batch.labels != IGNORED).float()
    none = torch.zeros_like(batch.gate_label)
    lengths = none.index_add(0, batch.texts, known)
    sums = none.index_add(0, batch.texts, -answer_log_probs(log_probs, batch.labels))
    return (sums / lengths.clamp_min(1)).sum() / (lengths > 0).sum().clamp_min(1)


def joint_loss(forward: Forward, batch: Batch, weight_lambda: float) -> Losses:
    """L_edit = L_gen + lambda * L_weight (Eq. 7).

    L_gen (Eq. 5) is :func:`mean_answer_loss`, so that long answers count no more than short ones;
    L_weight (Eq. 6) the mean over all texts of the batch.

    Served behind a scope by subject, the gate compares not [WEIGHT] alone, but the evidence (see
    :mod:`onceedit_vllm.evidence`). So for a text that names an edit L_weight is the mean of the losses of
    both: a question that asks for something else must not be answered with the edit's answer either.
    """
    generation = mean_answer_loss(forward.log_probs, batch)
    evidence = weigh_all(forward.gate_logits, forward.log_probs[batch.gate], batch.beginning)
    gate = (_gate_loss(forward.gate_logits, batch) + _gate_loss(evidence, batch)) / 2
    return Losses(generation + weight_lambda * gate, generation, gate)


def _gate_loss(logits: Tensor, batch: Batch) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, batch.gate_label)
