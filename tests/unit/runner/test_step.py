from __future__ import annotations

import json
import math
from typing import Any, cast

import pytest
import torch

from onceedit_vllm.runner.decisions import flush_decisions
from onceedit_vllm.runner.gate import Gate, prompt_key
from onceedit_vllm.runner.options import RequestOptions
from onceedit_vllm.runner.row import Row
from onceedit_vllm.runner.step import FusionStep
from tests.unit.runner.fakes import (
    EDITED,
    EOS,
    NAMED,
    POISON,
    UNNAMED,
    VOCAB,
    FakeHost,
    some_scope,
    some_step,
)


@pytest.fixture
def host():
    return FakeHost()


@pytest.fixture
def step(host):
    return some_step(host)


def some_logits(num_rows=4):
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(0))


def calls_of(step: FusionStep) -> list[Any]:
    """What the stand-in for the fuser was asked."""
    fuser: Any = step._fuser
    return list(fuser.calls)


def test_a_row_below_the_gate_keeps_its_bits_and_its_slot_is_freed(step, host):
    logits = some_logits()
    before = logits.clone()
    row = Row(prompt_ids=[1, 2, 3])
    step.run(logits, [(2, row)])
    assert torch.equal(logits, before)
    assert row.gated is False
    assert row.alpha == pytest.approx(0.0067, abs=1e-3)
    assert host.texts == {}


def test_a_bypassed_row_is_never_stepped_again(step, host):
    row = Row(prompt_ids=[1, 2, 3])
    for token in (4, 5, 6):
        step.run(some_logits(), [(0, row)])
        row.output_ids.append(token)
    assert host.num_steps == 1


def test_only_the_gated_rows_of_a_mixed_batch_change(step):
    logits = some_logits()
    before = logits.clone()
    rows = [(0, Row(prompt_ids=[1])), (1, Row(prompt_ids=[EDITED])), (3, Row(prompt_ids=[2]))]
    step.run(logits, rows)
    assert torch.equal(logits[[0, 2, 3]], before[[0, 2, 3]])
    assert int(logits[1].argmax()) == EDITED + 1


def test_the_plugin_follows_the_generated_text(step):
    row = Row(prompt_ids=[EDITED])
    for token in (3, 5, 2):
        logits = some_logits(1)
        step.run(logits, [(0, row)])
        assert int(logits[0].argmax()) == ([EDITED, *row.output_ids][-1] + 1) % VOCAB
        row.output_ids.append(token)


def test_a_resumed_request_ends_where_an_uninterrupted_one_does(step, host):
    whole = Row(prompt_ids=[EDITED])
    for token in (3, 5):
        step.run(some_logits(1), [(0, whole)])
        whole.output_ids.append(token)
    first, second = some_logits(1), some_logits(1)
    step.run(first, [(0, whole)])
    step.close(whole)
    resumed = Row(prompt_ids=[EDITED], output_ids=[3, 5])
    step.run(second, [(0, resumed)])
    assert torch.equal(first, second)
    assert (resumed.alpha, resumed.gated) == (whole.alpha, whole.gated)
    assert list(host.texts.values()) == [[EDITED, 3, 5]]


def test_the_samples_of_one_prompt_share_one_look_and_all_are_fused(step, host):
    logits = some_logits()
    rows = [(i, Row(prompt_ids=[EDITED, 2])) for i in range(3)]
    step.run(logits, rows)
    assert logits[:3].argmax(-1).tolist() == [3, 3, 3]
    assert {row.alpha for _, row in rows} == {rows[0][1].alpha}
    assert host.num_steps == 2


def test_forced_alpha_skips_the_gate(step):
    logits = some_logits()
    before = logits.clone()
    on = Row(prompt_ids=[1], options=RequestOptions(alpha=0.25))
    off = Row(prompt_ids=[EDITED], options=RequestOptions(alpha=0.0))
    step.run(logits, [(0, on), (1, off)])
    assert (on.gated, off.gated) == (True, False)
    assert calls_of(step) == [([0], [0.25], [True])]
    assert torch.equal(logits[1], before[1])


def test_half_a_character_is_left_to_the_llm_and_read_later(step, host):
    row = Row(prompt_ids=[EDITED])
    step.run(some_logits(1), [(0, row)])
    row.output_ids.append(11)
    logits = some_logits(1)
    before = logits.clone()
    step.run(logits, [(0, row)])
    assert torch.equal(logits, before)
    row.output_ids.append(4)
    step.run(logits, [(0, row)])
    assert int(logits[0].argmax()) == 5
    assert list(host.texts.values()) == [[EDITED, 11, 4]]


def test_after_its_end_a_row_belongs_to_the_llm(step, host):
    row = Row(prompt_ids=[EDITED])
    step.run(some_logits(1), [(0, row)])
    for token in (EOS, 4):
        row.output_ids.append(token)
        logits = some_logits(1)
        before = logits.clone()
        step.run(logits, [(0, row)])
        assert torch.equal(logits, before)
    assert host.texts == {}


def test_a_bias_is_put_on_the_fused_row(step):
    row = Row(prompt_ids=[EDITED], logit_bias={2: 60.0})
    logits = some_logits(1)
    step.run(logits, [(0, row)])
    assert logits[0, 2] == pytest.approx(10.0)
    assert int(logits[0].argmax()) == 2


def test_an_empty_text_is_bypassed_without_the_plugin(step, host):
    row = Row(prompt_ids=[])
    step.run(some_logits(1), [(0, row)])
    assert (row.alpha, row.gated, host.num_steps) == (0.0, False, 0)


def test_a_failing_plugin_raises_nothing_and_leaves_rows_to_the_llm(step, host, caplog):
    rows = [(0, Row(prompt_ids=[EDITED])), (1, Row(prompt_ids=[EDITED, 1]))]
    step.run(some_logits(), rows)
    host.fails = True
    for _, row in rows:
        row.output_ids.append(3)
    logits = some_logits()
    before = logits.clone()
    step.run(logits, rows)
    step.run(logits, rows)
    assert torch.equal(logits, before)
    assert host.texts == {}
    assert step.counts["failures"] == 1
    assert sum("answers these requests alone" in r.message for r in caplog.records) == 1


def test_requests_after_a_failure_are_served_again(step, host):
    host.fails = True
    step.run(some_logits(1), [(0, Row(prompt_ids=[EDITED]))])
    host.fails = False
    logits = some_logits(1)
    step.run(logits, [(0, Row(prompt_ids=[EDITED]))])
    assert int(logits[0].argmax()) == EDITED + 1


def test_what_a_spelt_token_lacks_is_owed(step):
    row = Row(prompt_ids=[EDITED, 4])
    step.run(some_logits(1), [(0, row)])
    row.output_ids.append(5)
    step.run(some_logits(1), [(0, row)])
    assert step._fuser.owed[0] == [None]
    (owed,) = step._fuser.owed[1]
    assert (owed.ids.tolist(), owed.mass.tolist(), float(owed.weight)) == ([9], [1.0], 1.0)


def test_what_is_owed_survives_a_preemption(step):
    live = Row(prompt_ids=[EDITED, 4])
    step.run(some_logits(1), [(0, live)])
    live.output_ids.append(5)
    step.run(some_logits(1), [(0, live)])
    step.close(live)
    step.run(some_logits(1), [(0, Row(prompt_ids=[EDITED, 4], output_ids=[5]))])
    (before,), (after,) = step._fuser.owed[-2:]
    assert before is not None
    assert before.weight == after.weight
    assert torch.equal(before.ids, after.ids)


def test_nothing_is_owed_for_a_token_the_plugin_did_not_mean(step):
    row = Row(prompt_ids=[EDITED, 2])
    step.run(some_logits(1), [(0, row)])
    row.output_ids.append(5)
    step.run(some_logits(1), [(0, row)])
    (owed,) = step._fuser.owed[-1]
    assert float(owed.weight) == 0.0
    assert not owed.mass.any()


def test_a_text_that_cannot_be_followed_harms_no_other_row(step, host):
    good, bad_prompt, bad_output = (
        Row(prompt_ids=[EDITED]),
        Row(prompt_ids=[EDITED, POISON]),
        Row(prompt_ids=[EDITED, 1]),
    )
    rows = [(0, bad_prompt), (1, good), (2, bad_output)]
    step.run(some_logits(), rows)
    good.output_ids.append(3)
    bad_output.output_ids.append(POISON)
    logits = some_logits()
    before = logits.clone()
    step.run(logits, rows)
    assert int(logits[1].argmax()) == 4
    assert torch.equal(logits[[0, 2]], before[[0, 2]])
    assert (good.failed, bad_prompt.failed, bad_output.failed) == (False, True, True)
    assert len(host.texts) == 1


def test_the_tally_joins_requests_and_rows(step):
    step.run(some_logits(2), [(0, Row(prompt_ids=[EDITED])), (1, Row(prompt_ids=[1]))])
    tally = step.tally()
    assert (tally["gated"], tally["bypassed"], tally["searched"], tally["left"]) == (1, 1, 1, 0)


#: Alpha is 0.0067 on all prompts but those that hold EDITED, where it is 0.9933.
CLOSED_ALPHA, OPEN_ALPHA = 0.0067, 0.9933


def decided(step, *prompts):
    """Admit and run requests, as an adapter does; those that were not admitted have no alpha."""
    rows = [Row(prompt_ids=prompt) for prompt in prompts]
    step.run(some_logits(len(rows)), [(i, row) for i, row in enumerate(rows) if step.admit(row)])
    return [(row.scope, None if row.alpha is None else round(row.alpha, 4), row.gated) for row in rows]


PROMPTS = ([1, 2], [NAMED, 2], [EDITED, 2])


def test_by_subject_and_weight_a_prompt_that_names_none_is_never_read(host):
    step = some_step(host, some_scope())
    assert decided(step, *PROMPTS) == [
        ("out", None, False),
        ("subject", CLOSED_ALPHA, False),
        ("subject", OPEN_ALPHA, True),
    ]
    assert list(host.texts.values()) == [[EDITED, 2]]
    assert step.tally()["out_of_scope"] == 1


def test_by_weight_alone_every_prompt_is_read(host):
    assert decided(some_step(host, some_scope("weight")), *PROMPTS) == [
        ("weight", CLOSED_ALPHA, False),
        ("weight", CLOSED_ALPHA, False),
        ("weight", OPEN_ALPHA, True),
    ]


def test_by_subject_alone_a_mention_opens_and_weight_is_not_asked(host):
    step = some_step(host, some_scope("subject"), weight="alpha")
    assert decided(step, *PROMPTS) == [("out", None, False), ("subject", 1.0, True), ("subject", 1.0, True)]
    assert calls_of(step) == [([1, 2], [1.0, 1.0], [True, True])]


@pytest.mark.parametrize("kind", ["subject+weight", "subject"])
def test_with_an_edit_without_a_subject_other_prompts_are_left_to_weight_alone(host, kind):
    gate = Gate(0.0, weight_threshold=0.5)
    first, named, _ = decided(some_step(host, some_scope(kind, UNNAMED), gate), *PROMPTS)
    assert first == ("weight", CLOSED_ALPHA, False)
    assert (named[0], named[2]) == ("subject", True)


def test_the_answer_of_a_named_edit_opens_the_gate_where_weight_alone_would_not(host):
    host.answer_probability = 0.999  # log-odds 6.9 beside [WEIGHT]'s -5
    assert decided(some_step(host, some_scope("weight")), [NAMED, 2]) == [("weight", CLOSED_ALPHA, False)]
    ((scope, alpha, gated),) = decided(some_step(host, some_scope()), [NAMED, 2])
    assert (scope, gated) == ("subject", True)
    assert alpha == pytest.approx(1 / (1 + math.exp(5.0 - math.log(999))), abs=1e-4)


def test_an_answer_that_the_plugin_does_not_know_keeps_the_gate_closed(host):
    host.answer_probability = 0.001
    ((_, alpha, gated),) = decided(some_step(host, some_scope()), [EDITED, 2])
    assert (alpha < 0.2, gated) == (True, False)


@pytest.mark.parametrize("probability", [0.001, 0.999])
def test_where_nothing_is_named_weight_decides_alone(host, probability):
    host.answer_probability = probability
    step = some_step(host, some_scope("subject+weight", UNNAMED))
    assert decided(step, [1, 2]) == [("weight", CLOSED_ALPHA, False)]
    step = some_step(host, some_scope("weight"))
    assert decided(step, [EDITED, 2]) == [("weight", OPEN_ALPHA, True)]


@pytest.mark.parametrize(
    ("weight", "fused"), [("decided", 1.0), ("alpha", pytest.approx(OPEN_ALPHA, abs=1e-4))]
)
def test_what_an_open_row_is_fused_with(host, weight, fused):
    step = some_step(host, some_scope(), weight=weight)
    assert decided(step, [EDITED]) == [("subject", OPEN_ALPHA, True)]
    assert calls_of(step) == [([0], [fused], [True])]


@pytest.mark.parametrize("weight", ["decided", "alpha"])
def test_a_forced_alpha_skips_the_scope_and_is_used_as_it_is(host, weight):
    step = some_step(host, some_scope("subject"), weight=weight)
    rows = [Row(prompt_ids=prompt, options=RequestOptions(alpha=0.25)) for prompt in PROMPTS]
    assert all(map(step.admit, rows))
    step.run(some_logits(), list(enumerate(rows)))
    assert calls_of(step) == [([0, 1, 2], [0.25] * 3, [True] * 3)]


def test_prompts_out_of_scope_are_logged_without_an_alpha(host, tmp_path):
    log = tmp_path / "decisions.jsonl"
    decided(some_step(host, some_scope(), Gate(0.5, log)), *PROMPTS)
    flush_decisions()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["scope"], line["gated"]) for line in lines] == [
        ("out", False),
        ("subject", False),
        ("subject", True),
    ]
    assert lines[0] == {"prompt": prompt_key([1, 2]), "alpha": None, "gated": False, "scope": "out"}


def test_a_prompt_that_cannot_be_looked_at_is_left_to_the_llm(host):
    step = some_step(host, some_scope())
    assert not step.admit(Row(prompt_ids=cast(Any, ["no id"])))
    assert step.counts["failures"] == 1
