from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from onceedit_vllm.alignment.align import Alignment
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.config import FusionConfig, MapKind, Solver
from onceedit_vllm.dense.search import FLOOR
from onceedit_vllm.errors import BadInputError
from onceedit_vllm.fusion import carrier as carrier_module
from onceedit_vllm.fusion import fuser as fuser_module
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.fusion.counts import FuseCounts, Tally
from onceedit_vllm.fusion.fuser import Fuser
from onceedit_vllm.fusion.lists import Lists, cut
from onceedit_vllm.fusion.outcome import INACTIVE, SAMPLED, SEARCHED
from onceedit_vllm.fusion.owed import Owed, SpellingBook
from onceedit_vllm.fusion.reference import fused_step
from onceedit_vllm.fusion.walk import walk_each_inplace, walk_together_inplace
from tests.unit.alignment.toys import matrices, toy_alignment

KINDS: list[MapKind] = ["textual", "calibrated", "eq16", "deepen"]
SOLVERS: list[Solver] = ["exact", "adamw"]
ALIGNMENTS = {kind: toy_alignment(kind) for kind in KINDS}
V_S, V_L = 23, 31


def make_batch(seed: int, count: int = 3, *, mask: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(count, V_L, generator=generator)
    logits[torch.rand(count, V_L, generator=generator) < mask] = -math.inf
    log_probs = (3 * torch.randn(count, V_S, generator=generator)).log_softmax(dim=1)
    log_probs[:, -1] = -math.inf  # [WEIGHT]
    return logits, log_probs


def run(
    kind: MapKind, logits: torch.Tensor, log_probs: torch.Tensor, alpha: list[float], search: bool, **kwargs
):
    result = logits.clone()
    count = len(alpha)
    fuser = Fuser(ALIGNMENTS[kind], FusionConfig(**kwargs), logits.device)
    inputs = torch.arange(count), log_probs, torch.tensor(alpha), torch.full((count,), search)
    step(fuser, result, *inputs, alignment=ALIGNMENTS[kind])
    return result, fuser.counts()


def step(
    fuser: Fuser,
    logits: torch.Tensor,
    rows: torch.Tensor,
    log_probs: torch.Tensor,
    alpha: torch.Tensor,
    want_search: torch.Tensor,
    *,
    alignment: Alignment = ALIGNMENTS["textual"],
) -> None:
    """Both halves, on the device of the logits."""
    carrier = Carrier.of(alignment, logits.shape[1], log_probs.shape[1], logits.device)
    lists = carrier.carry(log_probs)
    assert fuser.fuse_rows_inplace(logits, rows, lists, alpha, want_search, log_probs) == []


def expected_distribution(logits: torch.Tensor, log_probs: torch.Tensor, alpha: float) -> list[float]:
    """P of one row, token by token, with Python floats."""
    carry = ALIGNMENTS["textual"].carry.tolist()
    weights = [math.exp(v - float(logits.max())) for v in logits.tolist()]
    p = [(1 - alpha) * w / sum(weights) for w in weights]
    for token, log_prob in enumerate(log_probs.tolist()):
        if carry[token] >= 0 and logits[carry[token]] > -math.inf:
            p[carry[token]] += alpha * math.exp(log_prob)
    return [value / sum(p) for value in p]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    alpha=st.sampled_from([0.0, 1e-6, 0.3, 0.999, 1.0]),
    mask=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_sampling_rows_get_the_log_of_the_fused_distribution(
    kind: MapKind, seed: int, alpha: float, mask: float
) -> None:
    logits, log_probs = make_batch(seed, 1, mask=mask)
    logits[0, 3] = 0.5  # EOS stays possible
    result, counts = run(kind, logits, log_probs, [alpha], search=False)
    assert counts == FuseCounts(sampled=1)
    assert torch.equal(result[0] == -math.inf, logits[0] == -math.inf)
    assert not result.isnan().any()
    expected = torch.tensor(expected_distribution(logits[0], log_probs[0], alpha))
    torch.testing.assert_close(result[0].exp(), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(result.exp().sum(), torch.tensor(1.0), atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), alpha=st.floats(0.0, 1.0, width=32), mask=st.sampled_from([0.0, 0.6]))
def test_textual_greedy_is_the_most_probable_token(seed: int, alpha: float, mask: float) -> None:
    logits, log_probs = make_batch(seed, 1, mask=mask)
    logits[0, 3] = 0.5
    sampled, _ = run("textual", logits, log_probs, [alpha], search=False)
    for solver in SOLVERS:
        searched, counts = run("textual", logits, log_probs, [alpha], search=True, solver=solver)
        assert counts == FuseCounts(searched=1)
        assert searched.argmax() == sampled.argmax()
        assert torch.equal(searched == -math.inf, logits == -math.inf)
        assert searched[logits > -math.inf].isfinite().all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_rows_are_the_papers(kind: MapKind, solver: Solver) -> None:
    """Against the dense reference, in one batch, without masks."""
    alignment = ALIGNMENTS[kind]
    logits, log_probs = make_batch(7, 6)
    alphas = [0.0, 0.2, 0.5, 0.8, 0.95, 1.0]
    result, counts = run(kind, logits, log_probs, alphas, search=True, solver=solver)
    assert counts.searched == 6
    assert counts.certified + counts.dense_steps == (0 if kind == "textual" else 6)
    full_s, full_l = matrices(alignment)
    for row, alpha in enumerate(alphas):
        expected = fused_step(log_probs[row].exp(), full_s, logits[row].softmax(0), full_l, alpha)
        assert result[row].argmax() == expected.argmax()
        if solver == "adamw":
            torch.testing.assert_close(result[row], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["calibrated", "eq16", "deepen"])
def test_dense_kinds_aim_only_at_anchors_that_are_allowed(kind: MapKind, solver: Solver) -> None:
    """Against the dense reference, under masks."""
    alignment = ALIGNMENTS[kind]
    logits, log_probs = make_batch(11, 20, mask=0.5)
    logits[:, 3] = 0.0
    result, counts = run(kind, logits, log_probs, [0.6] * 20, search=True, solver=solver)
    assert counts.searched == 20
    assert torch.equal(result == -math.inf, logits == -math.inf)
    full_s, full_l = matrices(alignment)
    for row in range(20):
        allowed = logits[row] > -math.inf
        aims = allowed[alignment.anchors.llm_ids]
        p_s, p_l = log_probs[row].exp(), logits[row].softmax(0)
        expected = fused_step(p_s, full_s, p_l, full_l, 0.6, allowed=allowed, aims=aims)
        assert result[row].argmax() == expected.argmax()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("search", [True, False])
def test_a_bad_row_does_not_lift_the_masks_of_others(kind: MapKind, search: bool) -> None:
    logits, log_probs = make_batch(4, 4, mask=0.5)
    logits[:, 3] = 0.0
    logits[1], logits[2, 5] = -math.inf, math.nan
    log_probs[:] = log_probs[:1]
    best = int(log_probs[0].argmax())
    token = int(ALIGNMENTS[kind].carry[best])
    logits[[0, 3], token] = -math.inf
    result, counts = run(kind, logits, log_probs, [0.9] * 4, search)
    assert counts.left == 2
    assert torch.equal(result == -math.inf, logits == -math.inf)


def test_half_precision_keeps_allowed_tokens_finite() -> None:
    logits, log_probs = make_batch(4, 2, mask=0.3)
    logits[:, 3], logits[0, 4] = 0.0, 60000.0
    for dtype in (torch.bfloat16, torch.float16):
        half = logits.to(dtype)
        result, _ = run("textual", half, log_probs, [0.5, 1.0], search=False)
        assert result.dtype == dtype
        assert torch.equal(result == -math.inf, half == -math.inf)


@pytest.mark.parametrize("kind", KINDS)
def test_no_counter_is_made_twice(kind: MapKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making one waits for a GPU, and nothing may wait in a captured step."""
    made = []

    def counted(*args: Any) -> Tally:
        made.append(args)
        return Tally(*args)

    monkeypatch.setattr(fuser_module, "Tally", counted)
    fuser = Fuser(ALIGNMENTS[kind], FusionConfig())
    for _ in range(3):
        logits, log_probs = make_batch(1, 2)
        inputs = torch.arange(2), log_probs, torch.full((2,), 0.5), torch.ones(2, dtype=torch.bool)
        step(fuser, logits, *inputs, alignment=ALIGNMENTS[kind])
    assert len(made) == 3
    assert fuser.counts().searched == 6


def test_textual_fusion_is_the_fusion_of_the_textual_maps() -> None:
    alignment = ALIGNMENTS["textual"]
    logits, log_probs = make_batch(3, 4)
    alpha = torch.tensor([0.1, 0.5, 0.9, 1.0])
    result, _ = run("textual", logits, log_probs, alpha.tolist(), search=False)
    weight = alpha[:, None]
    full_s, full_l = matrices(alignment)
    space = weight * log_probs.exp() @ full_s + (1 - weight) * logits.softmax(1) @ full_l
    in_vocabulary = space @ full_l.T
    in_vocabulary /= in_vocabulary.sum(dim=1, keepdim=True)  # what [WEIGHT] would have had is missing
    torch.testing.assert_close(result.exp(), in_vocabulary, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_are_not_listed_keep_their_bits(kind: MapKind) -> None:
    logits, log_probs = make_batch(1, 6)
    logits[0, 5], logits[2, 1] = math.nan, math.inf
    wide = torch.full((12, 2 * V_L), 7.0)
    view = wide[::2, ::2]
    view.copy_(logits)
    assert not view.is_contiguous()
    before = wide.clone()
    rows, search = torch.tensor([4, 1]), torch.tensor([True, False])
    fuser = Fuser(ALIGNMENTS[kind], FusionConfig())
    alignment = ALIGNMENTS[kind]
    step(fuser, view, rows, log_probs[rows], torch.tensor([0.8, 0.7]), search, alignment=alignment)
    counts = fuser.counts()
    assert counts.searched == counts.sampled == 1
    for row in (0, 2, 3, 5):
        assert torch.equal(view[row].view(torch.int32), before[2 * row, ::2].view(torch.int32))
    assert (wide[1::2] == 7.0).all()
    assert (wide[:, 1::2] == 7.0).all()
    alone = logits.clone()
    for row, wanted, alpha in ((4, True, 0.8), (1, False, 0.7)):
        one = torch.tensor([row]), log_probs[row : row + 1], torch.tensor([alpha]), torch.tensor([wanted])
        step(Fuser(alignment, FusionConfig()), alone, *one, alignment=alignment)
    torch.testing.assert_close(view[[1, 4]], alone[[1, 4]], atol=1e-6, rtol=1e-5)


BAD = {
    "NaN in the plug-in": lambda logits, probs, alpha: probs.__setitem__((0, 4), math.nan),
    "NaN at [WEIGHT]": lambda logits, probs, alpha: probs.__setitem__((0, V_S - 1), math.nan),
    "inf in the plug-in": lambda logits, probs, alpha: probs.__setitem__((0, 4), math.inf),
    "overflow in the plug-in": lambda logits, probs, alpha: probs.__setitem__((0, 0), 1e4),
    "NaN in the LLM": lambda logits, probs, alpha: logits.__setitem__((0, 4), math.nan),
    "inf in the LLM": lambda logits, probs, alpha: logits.__setitem__((0, 4), math.inf),
    "everything masked": lambda logits, probs, alpha: logits.__setitem__(0, -math.inf),
    "alpha NaN": lambda logits, probs, alpha: alpha.__setitem__(0, math.nan),
    "alpha above one": lambda logits, probs, alpha: alpha.__setitem__(0, 1.5),
    "alpha below zero": lambda logits, probs, alpha: alpha.__setitem__(0, -0.1),
}


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_numbers_leave_the_row_to_the_llm(kind: MapKind, bad: str, search: bool) -> None:
    logits, log_probs = make_batch(2, 2)
    alpha = torch.tensor([0.6, 0.6])
    BAD[bad](logits, log_probs, alpha)
    before = logits.clone()
    fuser = Fuser(ALIGNMENTS[kind], FusionConfig())
    inputs = torch.arange(2), log_probs, alpha, torch.full((2,), search)
    step(fuser, logits, *inputs, alignment=ALIGNMENTS[kind])
    counts = fuser.counts()
    assert counts.left == 1
    assert counts.searched + counts.sampled == 1
    assert torch.equal(logits[0].view(torch.int32), before[0].view(torch.int32))
    assert not torch.equal(logits[1], before[1])


@pytest.mark.parametrize("search", [True, False])
def test_nothing_left_to_say_leaves_the_row(search: bool) -> None:
    """Alpha is 1 and all the plug-in's probability falls on masked tokens, or there is none."""
    for kind in KINDS:
        logits, log_probs = make_batch(2, 1)
        result, counts = run(kind, logits, log_probs.fill_(-math.inf), [1.0], search)
        assert counts == FuseCounts(left=1)
        assert torch.equal(result, logits)
    alignment = ALIGNMENTS["textual"]
    logits, log_probs = make_batch(2, 1)
    token = next(i for i, target in enumerate(alignment.carry.tolist()) if target >= 0)
    log_probs[0] = -math.inf
    log_probs[0, token] = 0.0
    logits[0, alignment.carry[token]] = -math.inf
    before = logits.clone()
    result, counts = run("textual", logits, log_probs, [1.0], search)
    assert counts == FuseCounts(left=1)
    assert torch.equal(result, before)
    _, counts = run("textual", logits, log_probs, [0.9], search)
    assert counts.left == 0, "the LLM's share is enough"


def test_no_allowed_anchor_leaves_a_dense_greedy_row() -> None:
    alignment = ALIGNMENTS["eq16"]
    logits, log_probs = make_batch(2, 1)
    logits[0, alignment.anchors.llm_ids] = -math.inf
    before = logits.clone()
    result, counts = run("eq16", logits, log_probs, [0.5], search=True)
    assert counts == FuseCounts(left=1)
    assert torch.equal(result, before)
    _, counts = run("eq16", logits, log_probs, [0.5], search=False)
    assert counts.sampled == 1


def test_end_of_sequence_reaches_the_llm() -> None:
    logits, log_probs = make_batch(2, 1)
    log_probs[0] = -math.inf
    log_probs[0, 0] = 0.0  # the plug-in is sure that the text ends
    for kind in ("textual", "calibrated"):
        result, _ = run(kind, logits, log_probs, [0.98], search=True)
        assert result[0].argmax() == 3


def test_no_rows() -> None:
    logits, _ = make_batch(1)
    before = logits.clone()
    fuser = Fuser(ALIGNMENTS["textual"], FusionConfig())
    none = torch.empty(0, dtype=torch.int64), torch.empty(0, V_S), torch.empty(0), torch.empty(0).bool()
    step(fuser, logits, *none)
    assert fuser.counts() == FuseCounts()
    assert torch.equal(logits, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("plugin_width", "llm_width"), [(V_S + 4, V_L + 3), (V_S - 1, V_L)])
def test_padded_vocabularies(kind: MapKind, plugin_width: int, llm_width: int) -> None:
    logits, log_probs = make_batch(5, 2)
    padded = torch.nn.functional.pad(logits, (0, llm_width - V_L), value=-math.inf)
    wide = torch.nn.functional.pad(log_probs, (0, plugin_width - V_S), value=-math.inf)
    for search in (True, False):
        expected, _ = run(kind, logits, log_probs, [0.7, 0.2], search)
        result, counts = run(kind, padded, wide, [0.7, 0.2], search)
        assert counts.left == 0
        torch.testing.assert_close(result[:, :V_L], expected, atol=1e-5, rtol=1e-5)
        assert (result[:, V_L:] == -math.inf).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_that_stand_for_none(solver: Solver) -> None:
    """-1 fills up a batch of fixed size: nothing happens to any row for it, whatever stands beside it."""
    for kind in KINDS:
        logits, log_probs = make_batch(9, 4)
        alpha, search = torch.full((4,), 0.7), torch.tensor([True, True, False, True])
        expected = logits.clone()
        fuser = Fuser(ALIGNMENTS[kind], FusionConfig(solver=solver))
        alignment = ALIGNMENTS[kind]
        one = torch.tensor([2]), log_probs[1:2], alpha[:1], search[1:2]
        step(fuser, expected, *one, alignment=alignment)
        padded = Fuser(ALIGNMENTS[kind], FusionConfig(solver=solver))
        rows = torch.tensor([-1, 2, -1, -1])
        step(padded, logits, rows, log_probs, alpha, search, alignment=alignment)
        assert torch.equal(logits, expected)
        assert padded.counts() == fuser.counts()
        step(padded, logits, torch.full((4,), -1), log_probs, alpha, search, alignment=alignment)
        assert torch.equal(logits, expected)
        assert padded.counts() == fuser.counts()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_walked_together_or_each(dtype: torch.dtype) -> None:
    """Exact results, with masks and without, one of them alone in its row; and rows that hold none."""
    logits = torch.full((6, V_L), FLOOR, dtype=dtype)
    logits[torch.arange(5), torch.tensor([3, 0, V_L - 1, 20, 20])] = 0.0
    logits[2, ::3] = logits[3, :20] = logits[3, 21:] = -math.inf
    logits[2, V_L - 1] = 0.0
    rows, searched = torch.tensor([4, -1, 3, 2, 1, 5]), torch.tensor([True, False, True, True, True, False])
    together, each = logits.clone(), logits.clone()
    walk_together_inplace(together, rows, searched, V_L, FusionConfig())
    walk_each_inplace(each, rows, searched, V_L, FusionConfig())
    assert torch.equal(together, each)
    assert torch.equal(each[[0, 5]], logits[[0, 5]])
    assert torch.equal(each[1:5].argmax(dim=1), logits[1:5].argmax(dim=1))
    assert torch.equal(each == -math.inf, logits == -math.inf)
    walk_together_inplace(together, rows, torch.zeros(6, dtype=torch.bool), V_L, FusionConfig())
    walk_each_inplace(each, rows, torch.zeros(6, dtype=torch.bool), V_L, FusionConfig())
    assert torch.equal(together, each)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU, or has a shape that depends on data."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "equal", "bincount")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(word in func.__name__ for word in self.WAITS), func
        if func is torch.ops.aten.index.Tensor or func is torch.ops.aten.index_put_.default:
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask as an index"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_waits_around_the_kernels(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the GPU path does besides its kernels, with a stand-in for these; they have tests of their own."""

    def stand_in(logits, rows, lists, alpha, want_search):
        assert lists.mass.shape[0] == 3
        logits.index_copy_(0, rows.clamp(min=0), lists.mass[:, :1].expand(-1, V_L).contiguous())
        return torch.where(rows < 0, INACTIVE, torch.where(want_search, SEARCHED, SAMPLED)).to(torch.int8)

    def carried(log_probs, layout, owed):
        assert owed.slots.shape == (3, 2)
        mass = log_probs.index_select(1, layout.targets % V_S)
        return Lists(layout.targets.expand(3, -1), mass, mass.new_zeros(3), True)

    monkeypatch.setattr(fuser_module, "_path_of", lambda device: (stand_in, walk_together_inplace))
    monkeypatch.setattr(carrier_module, "_path_of", lambda device: carried)
    fuser = Fuser(ALIGNMENTS["textual"], FusionConfig(solver=solver))
    carrier = Carrier.of(ALIGNMENTS["textual"], V_L, V_S)
    logits, log_probs = make_batch(9, 3)
    rows, alpha, search = torch.tensor([1, 2, -1]), torch.full((3,), 0.5), torch.tensor([True, False, True])
    debt = Owed(torch.tensor([3, 5]), torch.tensor([0.1, 0.2]), torch.tensor(0.3))

    def both_halves() -> list[int]:
        lists = carrier.carry(log_probs, [None, debt, None])
        return fuser.fuse_rows_inplace(logits, rows, lists, alpha, search)

    both_halves()
    with NoWaiting():
        assert both_halves() == []
    assert fuser.counts() == FuseCounts(searched=2, sampled=2)
    with pytest.raises(AssertionError), NoWaiting():
        bool(logits.any())


def test_nothing_waits_to_find_out_what_is_owed() -> None:
    book = SpellingBook(Spellings.of({2: [10, 11], 3: [10, 12]}), torch.tensor([20, 10, 10, 10]))
    said = torch.tensor([0.1, 0.3, 0.4, 0.2]).log()
    book.owed([7, 10], {1: said}.get)
    with NoWaiting():
        owed = book.owed([7, 10], {1: said}.get)
        assert owed is not None
        owed.only()


def test_hit_rates_and_bytes() -> None:
    alignment = toy_alignment("eq16", plugin_size=2300, llm_size=3100, num_anchors=1200)
    logits, log_probs = torch.randn(2, 3100), torch.randn(2, 2300).log_softmax(dim=1)
    fuser = Fuser(alignment, FusionConfig(solver="adamw"))
    assert fuser.hit_rates() == {}
    for rate in (0.0, 0.5):
        inputs = torch.arange(2), log_probs, torch.full((2,), 0.9), torch.tensor([True, False])
        step(fuser, logits.clone(), *inputs, alignment=alignment)
        assert fuser.hit_rates()["llm columns"] == rate
    assert alignment.dense is not None
    maps = alignment.dense.bytes_held()
    dense = 4 * 1200 * (2300 + 3100)
    assert maps < fuser.bytes_held() < maps + dense / 100, "caches keep a hundredth of the matrices"
    carrier = Carrier.of(alignment, 3100, 2300)
    assert 8 * 2300 < carrier.bytes_held() < 8 * 6 * 3100
    assert Fuser(ALIGNMENTS["textual"], FusionConfig()).bytes_held() == 0


@pytest.mark.parametrize("search", [True, False])
def test_dense_kinds_take_whole_lists_and_the_plugins_own_distribution(search: bool) -> None:
    alignment, fuser = ALIGNMENTS["eq16"], Fuser(ALIGNMENTS["eq16"], FusionConfig())
    logits, log_probs = make_batch(1, 1)
    before, lists = logits.clone(), Carrier.of(alignment, V_L, V_S).carry(log_probs)
    asked = torch.tensor([0.5]), torch.tensor([search])
    with pytest.raises(BadInputError, match="needs plugin_log_probs"):
        fuser.fuse_rows_inplace(logits, torch.tensor([0]), lists, *asked)
    with pytest.raises(BadInputError, match="cut lists"):
        fuser.fuse_rows_inplace(logits, torch.tensor([0]), cut(lists, 2), *asked, log_probs)
    assert torch.equal(logits, before)
    assert fuser.counts() == FuseCounts()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu(kind: MapKind) -> None:
    logits, log_probs = make_batch(5, 2, mask=0.3)
    for search in (True, False):
        expected, _ = run(kind, logits, log_probs, [0.7, 0.2], search)
        result, _ = run(kind, logits.cuda(), log_probs, [0.7, 0.2], search)
        torch.testing.assert_close(result.cpu(), expected, atol=1e-5, rtol=1e-4)
