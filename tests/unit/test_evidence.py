"""What speaks for an edit: [WEIGHT]'s logit and how likely the plug-in finds the named answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onceedit_vllm.edits import EditRecord
from onceedit_vllm.evidence import Evidence, first_tokens, sigmoid, weigh, weigh_all
from onceedit_vllm.testing import toy_bpe_tokenizer

logits = st.floats(-30.0, 30.0)


class Letters:
    """A token a letter: what is not in the alphabet is none."""

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [" abc".index(letter) for letter in text if letter in " abc"]


def edits(*targets: str) -> list[EditRecord]:
    return [EditRecord(id=f"{i}", prompt="p", target=target) for i, target in enumerate(targets)]


def log_probs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log()


@given(logits, st.floats(1e-5, 1.0 - 1e-5))
def test_the_evidence_multiplies_odds(weight_logit: float, probability: float) -> None:
    odds = math.exp(weight_logit) * probability / (1.0 - probability)
    assert weigh(weight_logit, probability) == pytest.approx(odds / (1.0 + odds), rel=1e-9)


@given(logits)
def test_an_answer_as_likely_as_not_says_nothing(weight_logit: float) -> None:
    assert weigh(weight_logit, 0.5) == sigmoid(weight_logit)


@given(logits)
def test_no_answer_says_more_than_the_bound(weight_logit: float) -> None:
    least, most = sigmoid(weight_logit - 12.0), sigmoid(weight_logit + 12.0)
    assert [weigh(weight_logit, p) for p in (-0.1, 0.0, 1e-300)] == [least] * 3
    assert [weigh(weight_logit, p) for p in (1.0 - 1e-15, 1.0, 1.0001)] == [most] * 3


def test_an_unknown_probability_speaks_against_the_edit() -> None:
    assert weigh(3.0, math.nan) == weigh(3.0, 0.0)


@pytest.mark.parametrize("x", [-math.inf, -800.0, -1.0, 0.0, 1.0, 800.0, math.inf])
def test_the_sigmoid_does_not_overflow(x: float) -> None:
    expected = 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else 0.0
    assert sigmoid(x) == pytest.approx(expected, abs=1e-12)


def test_where_nothing_is_named_weight_speaks_alone() -> None:
    evidence = Evidence(edits("a"), Letters())
    for log_prob in (log_probs(0.0, 1.0, 0.0, 0.0), log_probs(1.0, 0.0, 0.0, 0.0)):
        assert evidence.alpha(-1.5, log_prob, ()) == sigmoid(-1.5)


def test_of_several_named_edits_the_likeliest_counts() -> None:
    evidence = Evidence(edits("a", "b", "c"), Letters())
    said = log_probs(0.0, 0.2, 0.7, 0.1)
    for named in ((0, 1), (1, 2), (1,)):
        assert evidence.alpha(1.0, said, named) == pytest.approx(weigh(1.0, 0.7), abs=1e-6)


def test_nothing_speaks_for_an_answer_that_the_plugin_would_not_give() -> None:
    evidence = Evidence(edits("a", "b", "c"), Letters())
    said = log_probs(0.0, 0.45, 0.5, 0.05)
    assert [evidence.alpha(9.0, said, named) for named in ((0,), (2,), (0, 2))] == [0.0] * 3
    assert evidence.alpha(9.0, log_probs(0.0, 0.5, 0.5, 0.0), (0,)) > 0.99


def test_an_answer_may_begin_with_a_space_or_without() -> None:
    evidence = Evidence(edits("a"), Letters())
    assert evidence.alpha(0.0, log_probs(0.25, 0.5, 0.25, 0.0), (0,)) == pytest.approx(0.75, abs=1e-6)


def test_an_answer_of_which_nothing_can_be_written_has_no_chance() -> None:
    evidence = Evidence(edits("x"), EncodesNothing())
    assert evidence.alpha(3.0, log_probs(1.0), (0,)) == 0.0


class EncodesNothing:
    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return []


@pytest.mark.parametrize("named", [(), (0,)])
def test_without_a_number_from_weight_the_gate_stays_closed(named: tuple[int, ...]) -> None:
    assert Evidence(edits("a"), Letters()).alpha(math.nan, log_probs(0.0, 1.0, 0.0, 0.0), named) == 0.0


def test_numbers_that_the_plugin_failed_to_make_speak_for_no_edit() -> None:
    evidence = Evidence(edits("a", "b"), Letters())
    broken = torch.full((4,), math.nan)
    assert evidence.alpha(3.0, broken, (0, 1)) == 0.0


@pytest.mark.parametrize("target", ["Tarsk", " Tarsk", "Tarsk "])
def test_first_tokens_are_those_behind_a_space_and_without_one(target: str) -> None:
    tokenizer: Any = toy_bpe_tokenizer()
    spaced, bare = tokenizer.encode(" Tarsk")[0], tokenizer.encode("Tarsk")[0]
    assert spaced != bare
    assert first_tokens(target, tokenizer) == tuple(sorted({spaced, bare}))


def test_a_token_that_both_spellings_begin_with_counts_once() -> None:
    class Spaceless(Letters):
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return super().encode(text.strip(), add_special_tokens)

    assert first_tokens("bc", Spaceless()) == (2,)


@given(st.lists(st.tuples(logits, st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=8))
def test_what_is_trained_is_what_is_served(rows: list[tuple[float, float, bool]]) -> None:
    """Of a batch the same as of one text; 1e-4 of log-odds, in float32 and away from certainty 1e-6."""
    given_logits = torch.tensor([logit for logit, _, _ in rows])
    spread = torch.tensor([[p * 0.5, p * 0.5, 1 - p] for _, p, _ in rows]).clamp_min(1e-12).log()
    beginnings = torch.tensor([[0, 1] if named else [-100, -100] for _, _, named in rows])
    found = weigh_all(given_logits, spread, beginnings)
    for (logit, probability, named), value in zip(rows, found.tolist(), strict=True):
        wanted = weigh(logit, probability) if named else sigmoid(logit)
        assert sigmoid(value) == pytest.approx(wanted, abs=2e-3)


def test_the_gradient_is_finite_at_certainty() -> None:
    said = torch.tensor([[0.0, -math.inf], [-math.inf, 0.0]]).requires_grad_()
    weigh_all(torch.zeros(2), said, torch.tensor([[0, -100], [0, -100]])).sum().backward()
    assert said.grad is not None
    assert torch.isfinite(said.grad).all()
