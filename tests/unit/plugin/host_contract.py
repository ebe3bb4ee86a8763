"""What every plug-in host must do, wherever it runs the plug-in.

A test class derives from :class:`HostContract` and gives it two fixtures: `host`, freshly made and shut
down afterwards, and `model`, the same plug-in in this process (a float32 toy whose [WEIGHT] token
is its last one).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onceedit_vllm.errors import ModelError
from onceedit_vllm.plugin.host import PlugInHost, PlugInOutput, PlugInStep


def expected(model: Any, token_ids: list[int]) -> tuple[torch.Tensor, float]:
    """Log-probabilities and [WEIGHT] logit after a text, by the model alone."""
    ids = torch.tensor([token_ids])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1].float()
    weight = float(logits[-1])
    logits[-1] = -torch.inf
    return logits.log_softmax(-1), weight


def check(output: PlugInOutput, model: Any, texts: list[list[int]], rtol: float = 0.0) -> None:
    """The output is what the model says after these texts, in this order, within 1e-4."""
    assert output.log_probs.shape[0] == output.weight_logits.shape[0] == len(texts)
    assert output.log_probs.dtype == output.weight_logits.dtype == torch.float32
    for log_probs, weight_logit, text in zip(*output, texts, strict=True):
        reference, weight = expected(model, text)
        torch.testing.assert_close(log_probs.cpu(), reference, atol=1e-4, rtol=rtol)
        assert float(weight_logit) == pytest.approx(weight, abs=1e-4, rel=rtol)


def ask(host: PlugInHost, *steps: PlugInStep) -> PlugInOutput:
    return host.collect(host.submit(steps))


class HostContract:
    """Derive, give `host` and `model`, and run."""

    def test_rows_come_in_the_order_of_the_steps(self, host: PlugInHost, model: Any) -> None:
        texts = [[5, 6, 7, 8, 9, 10], [11], [12, 13, 14], [15, 16]]
        slots = [host.open() for _ in texts]
        order = [2, 0, 3, 1]
        output = ask(host, *(PlugInStep(slots[i], 0, texts[i]) for i in order))
        check(output, model, [texts[i] for i in order])

    def test_a_slot_reads_on(self, host: PlugInHost, model: Any) -> None:
        slot = host.open()
        check(ask(host, PlugInStep(slot, 0, [5, 6, 7])), model, [[5, 6, 7]])
        check(ask(host, PlugInStep(slot, 0, [8])), model, [[5, 6, 7, 8]])
        check(ask(host, PlugInStep(slot, 0, [9, 10, 11])), model, [[5, 6, 7, 8, 9, 10, 11]])

    def test_rollback(self, host: PlugInHost, model: Any) -> None:
        slot = host.open()
        ask(host, PlugInStep(slot, 0, [5, 6, 7, 8]))
        check(ask(host, PlugInStep(slot, 2, [9])), model, [[5, 6, 9]])
        check(ask(host, PlugInStep(slot, 3, [10, 11])), model, [[10, 11]])

    def test_rows_of_different_lengths_do_not_disturb_each_other(self, host: PlugInHost, model: Any) -> None:
        long, short = host.open(), host.open()
        ask(host, PlugInStep(long, 0, list(range(5, 45))))
        output = ask(host, PlugInStep(short, 0, [50, 51, 52]), PlugInStep(long, 1, [60, 61]))
        check(output, model, [[50, 51, 52], [*range(5, 44), 60, 61]])

    def test_slots_are_used_again_and_remember_nothing(self, host: PlugInHost, model: Any) -> None:
        first, other = host.open(), host.open()
        ask(host, PlugInStep(first, 0, [5, 6, 7]), PlugInStep(other, 0, [8, 9]))
        host.close(first)
        again = host.open()
        assert again != other
        check(ask(host, PlugInStep(again, 0, [10])), model, [[10]])
        check(ask(host, PlugInStep(other, 0, [11])), model, [[8, 9, 11]])

    def test_closing_twice_is_harmless(self, host: PlugInHost, model: Any) -> None:
        slot = host.open()
        host.close(slot)
        host.close(slot)
        taken = [host.open() for _ in range(3)]
        assert len(set(taken)) == 3

    def test_many_slots(self, host: PlugInHost, model: Any) -> None:
        texts = [[5 + i, 6 + i] for i in range(40)]
        output = ask(host, *(PlugInStep(host.open(), 0, text) for text in texts))
        check(output, model, texts)

    def test_tickets_are_collected_in_any_order(self, host: PlugInHost, model: Any) -> None:
        slots = host.open(), host.open()
        first = host.submit([PlugInStep(slots[0], 0, [5])])
        second = host.submit([PlugInStep(slots[1], 0, [6])])
        check(host.collect(second), model, [[6]])
        check(host.collect(first), model, [[5]])

    def test_outputs_may_be_written_into(self, host: PlugInHost, model: Any) -> None:
        slot = host.open()
        output = ask(host, PlugInStep(slot, 0, [5]))
        output.log_probs.zero_()
        output.weight_logits.zero_()
        check(ask(host, PlugInStep(slot, 0, [6])), model, [[5, 6]])

    def test_log_probs_are_a_distribution_without_weight(self, host: PlugInHost, model: Any) -> None:
        output = ask(host, PlugInStep(host.open(), 0, [5, 6]))
        assert output.log_probs[0, -1] == -torch.inf
        assert output.log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-5)

    def test_collecting_twice(self, host: PlugInHost, model: Any) -> None:
        ticket = host.submit([PlugInStep(host.open(), 0, [5])])
        host.collect(ticket)
        with pytest.raises(ModelError, match="collected before"):
            host.collect(ticket)

    @pytest.mark.parametrize(
        ("step", "message"),
        [
            (PlugInStep(99, 0, [5]), "slot 99 is not open"),
            (PlugInStep(0, 3, [5]), "holds 2 tokens and cannot roll back 3"),
            (PlugInStep(0, -1, [5]), "cannot roll back -1"),
            (PlugInStep(0, 0, []), "at least one token"),
            (PlugInStep(0, 0, [10**6]), "outside the plug-in's vocabulary"),
            (PlugInStep(0, 0, [-1]), "outside the plug-in's vocabulary"),
            (PlugInStep(0, 0, [5] * 10_000), "more than the plug-in's context"),
        ],
    )
    def test_errors_come_out_of_collect_and_harm_no_other_slot(
        self, host: PlugInHost, model: Any, step: PlugInStep, message: str
    ) -> None:
        slot = host.open()
        assert slot == 0
        ask(host, PlugInStep(slot, 0, [5, 6]))
        ticket = host.submit([step])
        with pytest.raises(ModelError, match=message):
            host.collect(ticket)
        check(ask(host, PlugInStep(slot, 0, [7])), model, [[5, 6, 7]])

    def test_one_slot_twice_in_a_step(self, host: PlugInHost, model: Any) -> None:
        slot = host.open()
        ticket = host.submit([PlugInStep(slot, 0, [5]), PlugInStep(slot, 0, [6])])
        with pytest.raises(ModelError, match="same plug-in slot"):
            host.collect(ticket)

    def test_shutdown(self, host: PlugInHost, model: Any) -> None:
        slot = host.open()
        host.shutdown()
        host.shutdown()
        host.close(slot)
        ticket = host.submit([PlugInStep(slot, 0, [5])])
        with pytest.raises(ModelError, match="shut down"):
            host.collect(ticket)
        with pytest.raises(ModelError, match="shut down"):
            host.open()
