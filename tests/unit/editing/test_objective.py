"""The joint objective (Eq. 5-7), against the same written out with plain numbers."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from onceedit_vllm.editing.batches import IGNORED, Batch
from onceedit_vllm.editing.objective import (
    Forward,
    answer_log_probs,
    joint_loss,
    missed_labels,
    run_forward,
)

WEIGHT = 4
NOT = IGNORED


def make_batch(labels: list[list[int]], gate: list[int], gate_label: list[float]) -> Batch:
    """Texts of six tokens, with the column of the first place and the labels from there on."""
    ids = torch.ones(len(labels), 6, dtype=torch.int64)
    beginning = torch.full((len(labels), 2), IGNORED)
    counts = torch.tensor([len(answer) for answer in labels])
    places = [6 * row + gate[row] + at for row, answer in enumerate(labels) for at in range(len(answer))]
    return Batch(
        input_ids=ids,
        attention_mask=ids,
        places=torch.tensor(places),
        texts=torch.arange(len(labels)).repeat_interleave(counts),
        labels=torch.tensor([label for answer in labels for label in answer]),
        gate=counts.cumsum(0) - counts,
        gate_label=torch.tensor(gate_label),
        beginning=beginning,
    )


#: Three texts: an answer of one token, one of three, and none.
BATCH = make_batch([[1], [2, 0, 3], [NOT]], [5, 3, 4], [1.0, 1.0, 0.0])
#: Their places, as row and column.
PLACES = [(0, 5), (1, 3), (1, 4), (1, 5), (2, 4)]


class Constant(torch.nn.Module):
    """Says the same logits whatever it reads."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.head = torch.nn.Identity()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return SimpleNamespace(logits=self.head(self.logits))


def saying(logits: Tensor) -> Any:
    """A plug-in of which the objective sees what it needs."""
    return SimpleNamespace(model=Constant(logits), weight_token_id=WEIGHT, arithmetic=nullcontext)


def some_logits() -> Tensor:
    return 2 * torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def log_softmax_without_weight(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for token, value in enumerate(row) if token != WEIGHT))
    return [-math.inf if token == WEIGHT else value - total for token, value in enumerate(row)]


def test_the_weight_token_has_no_share_in_the_answer_and_is_the_gate() -> None:
    logits = some_logits()
    forward = run_forward(saying(logits.float()), BATCH)
    expected = [log_softmax_without_weight(logits[row, column].tolist()) for row, column in PLACES]
    torch.testing.assert_close(forward.log_probs, torch.tensor(expected))
    at = [(0, 5), (1, 3), (2, 4)]
    torch.testing.assert_close(
        forward.gate_logits, torch.stack([logits[row, column, WEIGHT] for row, column in at]).float()
    )


def test_a_half_precision_model_is_judged_in_float32() -> None:
    forward = run_forward(saying(some_logits().bfloat16()), BATCH)
    assert forward.log_probs.dtype == forward.gate_logits.dtype == torch.float32
    sums = forward.log_probs.exp().sum(dim=-1)
    torch.testing.assert_close(sums, torch.ones(5), atol=1e-6, rtol=0)


def test_labels_pick_their_log_probabilities_and_ignored_ones_none() -> None:
    log_probs = torch.arange(12, dtype=torch.float32).reshape(3, 4).neg()
    assert answer_log_probs(log_probs, torch.tensor([3, IGNORED, 0])).tolist() == [-3.0, 0.0, -8.0]


def test_a_label_is_missed_where_another_token_is_likelier() -> None:
    log_probs = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    assert missed_labels(log_probs, torch.tensor([1, 1, IGNORED])).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("weight_lambda", [0.0, 0.8, 2.0])
def test_the_loss_is_that_of_the_paper_written_out(weight_lambda: float) -> None:
    logits = some_logits()
    losses = joint_loss(run_forward(saying(logits.float()), BATCH), BATCH, weight_lambda)
    rows = [[log_softmax_without_weight(row) for row in text] for text in logits.tolist()]
    # Eq. 5: the mean over the answers of their mean token loss. Two texts have answers.
    one, three = -rows[0][5][1], -(rows[1][3][2] + rows[1][4][0] + rows[1][5][3]) / 3
    generation = (one + three) / 2
    # Eq. 6: the mean over all texts of the binary cross-entropy of alpha.
    alphas = [1 / (1 + math.exp(-float(logits[row, at, WEIGHT]))) for row, at in ((0, 5), (1, 3), (2, 4))]
    gate = -(math.log(alphas[0]) + math.log(alphas[1]) + math.log(1 - alphas[2])) / 3
    assert losses.generation.item() == pytest.approx(generation, rel=1e-5)
    assert losses.gate.item() == pytest.approx(gate, rel=1e-5)
    assert losses.total.item() == pytest.approx(generation + weight_lambda * gate, rel=1e-5)


def test_long_answers_count_no_more_than_short_ones() -> None:
    """Doubling an answer by itself changes nothing: not so for a mean over all tokens."""
    log_probs = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    log_probs[2] = log_probs[1]
    short = make_batch([[1], [2]], [5, 5], [1.0, 1.0])
    long = make_batch([[1], [2, 2]], [5, 4], [1.0, 1.0])
    one, both = Forward(log_probs[:2], torch.zeros(2)), Forward(log_probs, torch.zeros(2))
    assert joint_loss(one, short, 1.0).generation == joint_loss(both, long, 1.0).generation


def test_the_gradient_of_both_parts_reaches_the_logits_and_ignored_places_get_none() -> None:
    logits = some_logits().float().requires_grad_()
    losses = joint_loss(run_forward(saying(logits), BATCH), BATCH, 0.8)
    (gradient,) = torch.autograd.grad(losses.total, logits)
    assert torch.isfinite(gradient).all()
    asked = torch.zeros(3, 6, dtype=torch.bool)
    asked[tuple(zip(*PLACES, strict=True))] = True
    assert gradient[~asked].abs().sum() == 0
    learnt = gradient[0, 5, :WEIGHT]
    expected = run_forward(saying(logits.detach()), BATCH).log_probs[0, :WEIGHT].exp()
    expected[1] -= 1
    torch.testing.assert_close(learnt, expected / 2)
    alpha = torch.sigmoid(logits[2, 4, WEIGHT])
    assert gradient[2, 4, WEIGHT].item() == pytest.approx(0.8 * alpha.item() / 3, rel=1e-5)
    assert gradient[2, 4, :WEIGHT].abs().sum() == 0


def test_a_batch_without_answers_learns_the_gate_alone() -> None:
    batch = make_batch([[NOT]], [5], [0.0])
    losses = joint_loss(Forward(torch.zeros(1, 5), torch.zeros(1)), batch, 0.5)
    assert losses.generation.item() == 0.0
    assert losses.gate.item() == pytest.approx(math.log(2))
    assert losses.total.item() == pytest.approx(0.5 * math.log(2))


def test_texts_that_name_an_edit_learn_the_evidence_too() -> None:
    """Written out: log-odds of [WEIGHT] and of the answer's first tokens, added, beside [WEIGHT]'s alone."""
    logits = some_logits().float()
    forward = run_forward(saying(logits), BATCH)
    named = BATCH._replace(beginning=torch.tensor([[1, NOT], [NOT, NOT], [0, 2]]))
    alone = [_cross_entropy(float(g), y) for g, y in zip(forward.gate_logits, (1.0, 1.0, 0.0), strict=True)]
    first = float(forward.log_probs[0, 1].exp())
    third = float(forward.log_probs[4, [0, 2]].exp().sum())
    odds = [math.log(first / (1 - first)), 0.0, math.log(third / (1 - third))]
    joined = [
        _cross_entropy(float(g) + o, y)
        for g, o, y in zip(forward.gate_logits, odds, (1.0, 1.0, 0.0), strict=True)
    ]
    losses = joint_loss(forward, named, 0.8)
    assert losses.gate.item() == pytest.approx((sum(alone) + sum(joined)) / 6, rel=1e-5)
    assert losses.generation == joint_loss(forward, BATCH, 0.8).generation


def test_a_counter_example_is_taught_not_to_say_the_answer() -> None:
    logits = some_logits().float().requires_grad_()
    named = BATCH._replace(beginning=torch.tensor([[NOT, NOT], [NOT, NOT], [0, 2]]))
    (gradient,) = torch.autograd.grad(
        joint_loss(run_forward(saying(logits), named), named, 0.8).total, logits
    )
    at = gradient[2, 4]
    assert torch.isfinite(gradient).all()
    assert (at[[0, 2]] > 0).all()  # down they go
    assert (at[[1, 3]] < 0).all()


def _cross_entropy(logit: float, label: float) -> float:
    alpha = 1 / (1 + math.exp(-logit))
    return -math.log(alpha if label else 1 - alpha)
