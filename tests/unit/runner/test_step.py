"""What a step makes of the plug-in's answers; the plug-in and the fuser say what the test wants to hear."""

from __future__ import annotations

import json
import math
from typing import Any, cast

import pytest
import torch

from onceedit_vllm.config import FusionConfig
from onceedit_vllm.errors import ModelError
from onceedit_vllm.fusion.fuser import Fuser
from onceedit_vllm.fusion.lists import Lists
from onceedit_vllm.plugin.gate import Gate, prompt_key
from onceedit_vllm.plugin.packets import Answer, Answers, State
from onceedit_vllm.runner.decisions import DecisionsLog, flush_decisions
from onceedit_vllm.runner.options import RequestOptions
from onceedit_vllm.runner.penalties import Penalties
from onceedit_vllm.runner.row import Row
from onceedit_vllm.runner.step import FusionStep
from tests.unit.alignment.toys import toy_alignment
from tests.unit.plugin.fakes import BROKEN, EDITED, EOS, HALF, POISON, VOCAB, FakeRuntime
from tests.unit.runner.fakes import NAMED, UNNAMED, some_scope, some_step


@pytest.fixture
def runtime():
    return FakeRuntime()


@pytest.fixture
def step(runtime):
    return some_step(runtime)


def some_logits(num_rows=4):
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(0))


def calls_of(step: FusionStep) -> list[Any]:
    """What the stand-in for the fuser was asked."""
    fuser: Any = step._fuser
    return list(fuser.calls)


def told(step: FusionStep) -> list[Any]:
    """Records what is told to the plug-in's host from now on."""
    plugin: Any = step._plugin
    events: list[Any] = []
    send = plugin.send

    def record(new: list[Any]) -> None:
        events.extend(new)
        send(new)

    plugin.send = record
    return events


def test_a_row_below_the_gate_keeps_its_bits_and_its_slot_is_freed(step, runtime):
    logits = some_logits()
    before = logits.clone()
    row = Row(prompt_ids=[1, 2, 3])
    step.finish(logits, [(2, row)])
    assert torch.equal(logits, before)
    assert row.is_over
    assert row.alpha == pytest.approx(0.0067, abs=1e-3)
    assert runtime.texts == {}


def test_a_bypassed_row_is_never_stepped_again(step, runtime):
    row = Row(prompt_ids=[1, 2, 3])
    for token in (4, 5, 6):
        step.finish(some_logits(), [(0, row)])
        row.output_ids.append(token)
    assert runtime.num_steps == 1


def test_only_the_gated_rows_of_a_mixed_batch_change(step):
    logits = some_logits()
    before = logits.clone()
    rows = [(0, Row(prompt_ids=[1])), (1, Row(prompt_ids=[EDITED])), (3, Row(prompt_ids=[2]))]
    step.finish(logits, rows)
    assert torch.equal(logits[[0, 2, 3]], before[[0, 2, 3]])
    assert int(logits[1].argmax()) == EDITED + 1


def test_the_plugin_follows_the_generated_text(step):
    row = Row(prompt_ids=[EDITED])
    for token in (3, 5, 2):
        logits = some_logits(1)
        step.finish(logits, [(0, row)])
        assert int(logits[0].argmax()) == ([EDITED, *row.output_ids][-1] + 1) % VOCAB
        row.output_ids.append(token)


def test_a_resumed_request_ends_where_an_uninterrupted_one_does(step, runtime):
    whole = Row(prompt_ids=[EDITED])
    for token in (3, 5):
        step.finish(some_logits(1), [(0, whole)])
        whole.output_ids.append(token)
    first, second = some_logits(1), some_logits(1)
    step.finish(first, [(0, whole)])
    step.close(whole)
    resumed = Row(prompt_ids=[EDITED], output_ids=[3, 5])
    step.finish(second, [(0, resumed)])
    assert torch.equal(first, second)
    assert resumed.alpha == whole.alpha
    assert list(runtime.texts.values()) == [[EDITED, 3, 5]]


def test_the_samples_of_one_prompt_share_one_look_and_all_are_fused(step, runtime):
    logits = some_logits()
    rows = [(i, Row(prompt_ids=[EDITED, 2])) for i in range(3)]
    step.finish(logits, rows)
    assert logits[:3].argmax(-1).tolist() == [3, 3, 3]
    assert runtime.num_steps == 2


def test_forced_alpha_skips_the_gate(step):
    logits = some_logits()
    before = logits.clone()
    on = Row(prompt_ids=[1], options=RequestOptions(alpha=0.25))
    off = Row(prompt_ids=[EDITED], options=RequestOptions(alpha=0.0))
    step.finish(logits, [(0, on), (1, off)])
    assert (on.is_over, off.is_over) == (False, True)
    assert calls_of(step) == [([0], [0.25], [True])]
    assert torch.equal(logits[1], before[1])


def test_half_a_character_is_left_to_the_llm_and_read_later(step, runtime):
    row = Row(prompt_ids=[EDITED])
    step.finish(some_logits(1), [(0, row)])
    row.output_ids.append(HALF)
    logits = some_logits(1)
    before = logits.clone()
    step.finish(logits, [(0, row)])
    assert torch.equal(logits, before)
    row.output_ids.append(4)
    step.finish(logits, [(0, row)])
    assert int(logits[0].argmax()) == 5
    assert list(runtime.texts.values()) == [[EDITED, HALF, 4]]


def test_after_its_end_a_row_belongs_to_the_llm(step, runtime):
    row = Row(prompt_ids=[EDITED])
    step.finish(some_logits(1), [(0, row)])
    for token in (EOS, 4):
        row.output_ids.append(token)
        logits = some_logits(1)
        before = logits.clone()
        step.finish(logits, [(0, row)])
        assert torch.equal(logits, before)
    assert runtime.texts == {}


def test_a_bias_is_put_on_the_fused_row(step):
    row = Row(prompt_ids=[EDITED], logit_bias={2: 60.0})
    logits = some_logits(1)
    step.finish(logits, [(0, row)])
    assert logits[0, 2] == pytest.approx(10.0)
    assert int(logits[0].argmax()) == 2


def test_an_empty_text_is_bypassed_without_the_plugin(step, runtime):
    row = Row(prompt_ids=[])
    step.finish(some_logits(1), [(0, row)])
    assert (row.alpha, row.is_over, runtime.num_steps) == (0.0, True, 0)


def test_a_failing_plugin_raises_nothing_and_leaves_rows_to_the_llm(step, runtime, caplog):
    rows = [(0, Row(prompt_ids=[EDITED])), (1, Row(prompt_ids=[EDITED, 1]))]
    step.finish(some_logits(), rows)
    runtime.fails = True
    for _, row in rows:
        row.output_ids.append(3)
    logits = some_logits()
    before = logits.clone()
    step.finish(logits, rows)
    step.finish(logits, rows)
    assert torch.equal(logits, before)
    assert runtime.texts == {}
    assert step.counts["failures"] == 2
    assert sum("answers this request alone" in r.message for r in caplog.records) == 1


def test_requests_after_a_failure_are_served_again(step, runtime):
    runtime.fails = True
    step.finish(some_logits(1), [(0, Row(prompt_ids=[EDITED]))])
    runtime.fails = False
    logits = some_logits(1)
    step.finish(logits, [(0, Row(prompt_ids=[EDITED]))])
    assert int(logits[0].argmax()) == EDITED + 1


def test_a_text_that_cannot_be_followed_harms_no_other_row(step, runtime):
    good, bad_prompt, bad_output = (
        Row(prompt_ids=[EDITED]),
        Row(prompt_ids=[EDITED, POISON]),
        Row(prompt_ids=[EDITED, 1]),
    )
    rows = [(0, bad_prompt), (1, good), (2, bad_output)]
    step.finish(some_logits(), rows)
    good.output_ids.append(3)
    bad_output.output_ids.append(POISON)
    logits = some_logits()
    before = logits.clone()
    step.finish(logits, rows)
    assert int(logits[1].argmax()) == 4
    assert torch.equal(logits[[0, 2]], before[[0, 2]])
    assert (good.is_over, bad_prompt.is_over, bad_output.is_over) == (False, True, True)
    assert len(runtime.texts) == 1


def test_the_tally_joins_requests_and_rows(step):
    step.finish(some_logits(2), [(0, Row(prompt_ids=[EDITED])), (1, Row(prompt_ids=[1]))])
    tally = step.tally()
    assert (tally["gated"], tally["bypassed"], tally["searched"], tally["left"]) == (1, 1, 1, 0)


#: Alpha is 0.0067 on all prompts but those that hold EDITED, where it is 0.9933.
CLOSED_ALPHA, OPEN_ALPHA = 0.0067, 0.9933


def decided(step, *prompts):
    """Admit and run requests, as an adapter does; those that were not admitted have no alpha."""
    rows = [Row(prompt_ids=prompt) for prompt in prompts]
    step.finish(some_logits(len(rows)), [(i, row) for i, row in enumerate(rows) if step.admit(row)])
    gated = {index for indices, _, _ in calls_of(step) for index in indices}
    return [
        (row.scope, None if row.alpha is None else round(row.alpha, 4), i in gated)
        for i, row in enumerate(rows)
    ]


PROMPTS = ([1, 2], [NAMED, 2], [EDITED, 2])


def test_by_subject_and_weight_a_prompt_that_names_none_is_never_read(runtime):
    step = some_step(runtime, some_scope())
    assert decided(step, *PROMPTS) == [
        ("out", None, False),
        ("subject", CLOSED_ALPHA, False),
        ("subject", OPEN_ALPHA, True),
    ]
    assert list(runtime.texts.values()) == [[EDITED, 2]]
    assert step.tally()["out_of_scope"] == 1


def test_by_weight_alone_every_prompt_is_read(runtime):
    assert decided(some_step(runtime, some_scope("weight")), *PROMPTS) == [
        ("weight", CLOSED_ALPHA, False),
        ("weight", CLOSED_ALPHA, False),
        ("weight", OPEN_ALPHA, True),
    ]


def test_by_subject_alone_a_mention_opens_and_weight_is_not_asked(runtime):
    step = some_step(runtime, some_scope("subject"), weight="alpha")
    assert decided(step, *PROMPTS) == [("out", None, False), ("subject", 1.0, True), ("subject", 1.0, True)]
    assert calls_of(step) == [([1, 2], [1.0, 1.0], [True, True])]


@pytest.mark.parametrize("kind", ["subject+weight", "subject"])
def test_with_an_edit_without_a_subject_other_prompts_are_left_to_weight_alone(runtime, kind):
    gate = Gate(0.0, weight_threshold=0.5)
    first, named, _ = decided(some_step(runtime, some_scope(kind, UNNAMED), gate), *PROMPTS)
    assert first == ("weight", CLOSED_ALPHA, False)
    assert (named[0], named[2]) == ("subject", True)


def test_the_answer_of_a_named_edit_opens_the_gate_where_weight_alone_would_not(runtime):
    runtime.answer_probability = 0.999  # log-odds 6.9 beside [WEIGHT]'s -5
    assert decided(some_step(runtime, some_scope("weight")), [NAMED, 2]) == [("weight", CLOSED_ALPHA, False)]
    ((scope, alpha, gated),) = decided(some_step(runtime, some_scope()), [NAMED, 2])
    assert (scope, gated) == ("subject", True)
    assert alpha == pytest.approx(1 / (1 + math.exp(5.0 - math.log(999))), abs=1e-4)


def test_an_answer_that_the_plugin_does_not_know_keeps_the_gate_closed(runtime):
    runtime.answer_probability = 0.001
    ((_, alpha, gated),) = decided(some_step(runtime, some_scope()), [EDITED, 2])
    assert (alpha < 0.2, gated) == (True, False)


@pytest.mark.parametrize("probability", [0.001, 0.999])
def test_where_nothing_is_named_weight_decides_alone(runtime, probability):
    runtime.answer_probability = probability
    step = some_step(runtime, some_scope("subject+weight", UNNAMED))
    assert decided(step, [1, 2]) == [("weight", CLOSED_ALPHA, False)]
    step = some_step(runtime, some_scope("weight"))
    assert decided(step, [EDITED, 2]) == [("weight", OPEN_ALPHA, True)]


@pytest.mark.parametrize(
    ("weight", "fused"), [("decided", 1.0), ("alpha", pytest.approx(OPEN_ALPHA, abs=1e-4))]
)
def test_what_an_open_row_is_fused_with(runtime, weight, fused):
    step = some_step(runtime, some_scope(), weight=weight)
    assert decided(step, [EDITED]) == [("subject", OPEN_ALPHA, True)]
    assert calls_of(step) == [([0], [fused], [True])]


@pytest.mark.parametrize("weight", ["decided", "alpha"])
def test_a_forced_alpha_skips_the_scope_and_is_used_as_it_is(runtime, weight):
    step = some_step(runtime, some_scope("subject"), weight=weight)
    rows = [Row(prompt_ids=prompt, options=RequestOptions(alpha=0.25)) for prompt in PROMPTS]
    assert all(map(step.admit, rows))
    step.finish(some_logits(), list(enumerate(rows)))
    assert calls_of(step) == [([0, 1, 2], [0.25] * 3, [True] * 3)]


def test_prompts_out_of_scope_are_logged_without_an_alpha(runtime, tmp_path):
    log = tmp_path / "decisions.jsonl"
    decided(some_step(runtime, some_scope(), log=DecisionsLog(log)), *PROMPTS)
    flush_decisions()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["scope"], line["gated"]) for line in lines] == [
        ("out", False),
        ("subject", False),
        ("subject", True),
    ]
    assert lines[0] == {"prompt": prompt_key([1, 2]), "alpha": None, "gated": False, "scope": "out"}


def test_a_prompt_that_cannot_be_looked_at_is_left_to_the_llm(runtime):
    step = some_step(runtime, some_scope())
    assert not step.admit(Row(prompt_ids=cast(Any, ["no id"])))
    assert step.counts["failures"] == 1


# What the host is told.


def test_what_is_new_is_told_once_however_often_a_step_begins(step):
    events = told(step)
    row = Row(prompt_ids=[EDITED, 2])
    for _ in range(2):
        step.begin([row])
    step.finish(some_logits(1), [(0, row)])
    row.output_ids.append(3)
    for _ in range(2):
        step.begin([row])
        step.finish(some_logits(1), [(0, row)])
    assert [(type(event).__name__, event.handle) for event in events] == [("Open", 0), ("Append", 0)]
    assert (events[1].start, events[1].ids) == (0, [3])


def test_a_row_that_is_over_is_not_told_of_again(step):
    row = Row(prompt_ids=[1])
    step.finish(some_logits(1), [(0, row)])
    events = told(step)
    row.output_ids.append(3)
    step.begin([row])
    step.finish(some_logits(1), [(0, row)])
    assert events == []


def test_a_host_that_has_forgotten_is_told_everything_once_more(step, runtime):
    """As after its restart."""
    kept, lost = Row(prompt_ids=[EDITED]), Row(prompt_ids=[EDITED, 2])
    rows = [(0, kept), (1, lost)]
    step.finish(some_logits(2), rows)
    step._plugin._forget(lost.handle)
    for row in (kept, lost):
        row.output_ids.append(4)
    logits = some_logits(2)
    step.finish(logits, rows)
    assert logits.argmax(-1).tolist() == [5, 5]
    assert step.counts["reopened"] == 1
    assert sorted(runtime.texts.values()) == [[EDITED, 2, 4], [EDITED, 4]]


def test_one_that_has_another_pack_since_is_told_of_it_too_and_what_it_decided_stays(step, runtime):
    """As after its restart and a swap of which this engine has not heard: the first word is UNKNOWN twice."""
    closed, opened = Row(prompt_ids=[1, 2]), Row(prompt_ids=[EDITED])
    take, unknown = step._plugin.take, list[Any]()

    def forgetful(wanted):
        answers = take(wanted)
        if len(unknown) == 2:
            return answers
        unknown.append(wanted)
        step._plugin._forget(opened.handle)
        of = [
            Answer(State.UNKNOWN) if handle == opened.handle else answer
            for (handle, _), answer in zip(wanted, answers.of, strict=True)
        ]
        return Answers(of)

    step._plugin.take = forgetful
    logits = some_logits(2)
    step.finish(logits, [(0, closed), (1, opened)])
    assert [len(wanted) for wanted in unknown] == [2, 1]  # of what it has closed it knows no more
    assert (step.counts["reopened"], step.counts["bypassed"], step.counts["failures"]) == (2, 1, 0)
    assert logits.argmax(-1)[1] == EDITED + 1
    assert closed.is_over


def test_a_host_that_is_gone_leaves_the_rows_to_the_llm(step, monkeypatch, caplog):
    row = Row(prompt_ids=[EDITED])
    monkeypatch.setattr(step._plugin, "take", lambda wanted: (_ for _ in ()).throw(ModelError("gone")))
    logits = some_logits(1)
    before = logits.clone()
    step.finish(logits, [(0, row)])
    assert torch.equal(logits, before)
    assert (row.is_over, step.counts["failures"]) == (True, 1)
    assert sum("answers these requests alone" in r.message for r in caplog.records) == 1


def test_a_request_that_ends_with_this_token_is_forgotten_after_it(step, runtime):
    row = Row(prompt_ids=[EDITED], max_tokens=2)
    step.finish(some_logits(1), [(0, row)])
    assert (row.is_over, len(runtime.texts)) == (False, 1)
    row.output_ids.append(3)
    logits = some_logits(1)
    step.finish(logits, [(0, row)])
    assert int(logits[0].argmax()) == 4
    assert (row.is_over, runtime.texts) == (True, {})


def test_only_the_row_on_which_the_plugin_fails_is_given_up(step, runtime):
    rows = [(i, Row(prompt_ids=[EDITED, i + 1])) for i in range(3)]
    step.finish(some_logits(3), rows)
    for token, (_, row) in zip((3, BROKEN, 4), rows, strict=True):
        row.output_ids.append(token)
    logits = some_logits(3)
    before = logits.clone()
    step.finish(logits, rows)
    assert logits[[0, 2]].argmax(-1).tolist() == [4, 5]
    assert torch.equal(logits[1], before[1])
    assert [row.is_over for _, row in rows] == [False, True, False]
    assert step.tally()["failures"] == 1


def test_penalties_are_lifted_before_fusion_and_laid_after(step):
    """What V1 gives, where vLLM lays them after the processors, up to rounding."""
    penalties = Penalties(repetition=1.5, frequency=0.3, presence=0.2)
    prompt, output = [EDITED, 2], [4, 4, 5]
    own = some_logits(1)
    after, before = own.clone(), own.clone()
    step.finish(after, [(0, Row(prompt_ids=prompt, output_ids=list(output)))])
    penalties.lay(after[0], prompt, output)
    penalties.lay(before[0], prompt, output)
    seen = before.clone()
    penalties.lift(seen[0], prompt, output)
    torch.testing.assert_close(seen, own, atol=1e-6, rtol=1e-6)
    row = Row(prompt_ids=prompt, output_ids=list(output), penalties=penalties)
    step.finish(before, [(0, row)])
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(("eos_id", "ended"), [(EOS, True), (None, False)])
def test_an_answer_that_the_plugin_is_lost_in_ends_there_or_is_left_to_the_llm(runtime, eos_id, ended):
    step = some_step(runtime, eos_id=eos_id)
    begun, fresh = Row(prompt_ids=[EDITED, 2]), Row(prompt_ids=[EDITED, 3])
    step.finish(some_logits(1), [(0, begun)])
    begun.output_ids.append(3)
    runtime.fails = True
    logits = some_logits(2)
    before = logits.clone()
    step.finish(logits, [(0, begun), (1, fresh)])
    assert torch.equal(logits[1], before[1])
    assert (begun.is_stopped, begun.is_over, fresh.is_over) == (ended, not ended, True)
    if ended:
        assert (logits[0] > -math.inf).nonzero().tolist() == [[EOS]]
        begun.output_ids.append(4)  # min_tokens, or the end is no token that stops
        step.finish(before, [(0, begun)])
        assert (before[0] > -math.inf).nonzero().tolist() == [[EOS]]
    else:
        assert torch.equal(logits, before)


def test_where_the_end_is_masked_the_llm_goes_on(runtime):
    step = some_step(runtime, eos_id=EOS)
    row = Row(prompt_ids=[EDITED])
    step.finish(some_logits(1), [(0, row)])
    row.output_ids.append(3)
    runtime.fails = True
    logits = some_logits(1)
    logits[0, EOS] = -math.inf
    before = logits.clone()
    step.finish(logits, [(0, row)])
    assert torch.equal(logits, before)


def test_where_a_cut_list_is_not_enough_the_whole_one_is_asked_for(step, runtime, monkeypatch):
    """With the real fuser; what the second list leaves out could be as likely as its best."""
    runtime.answer_probability = 1e-30
    rows = [(0, Row(prompt_ids=[EDITED, 2])), (2, Row(prompt_ids=[EDITED, 3]))]
    plugin: Any = step._plugin
    take = plugin.take

    def take_cut(wanted):
        answers = take(wanted)
        kept = answers.lists.mass.topk(1)
        tail = torch.tensor([0.0, 1.0])
        return answers._replace(lists=Lists(kept.indices, kept.values, tail, False))

    monkeypatch.setattr(plugin, "take", take_cut)
    asked = []
    more = plugin.more

    def record_more(handles):
        asked.append(handles)
        return more(handles)

    monkeypatch.setattr(plugin, "more", record_more)
    alignment = toy_alignment("textual", plugin_size=VOCAB, llm_size=VOCAB, num_anchors=8)
    step._fuser = Fuser(alignment, FusionConfig())
    logits = torch.zeros(3, VOCAB)
    step.finish(logits, rows)
    assert logits.argmax(-1).tolist() == [3, 0, 4]
    assert asked == [[1]]
