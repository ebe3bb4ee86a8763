"""Fusion at the size of real vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fusion_bench.recorded import Steps, record

from onceedit_vllm.alignment.align import Alignment, align
from onceedit_vllm.alignment.embeddings import load_embeddings
from onceedit_vllm.config import DenseKind, FusionConfig, Solver
from onceedit_vllm.dense.bounds import Side
from onceedit_vllm.dense.lines import MapLines
from onceedit_vllm.dense.peak import find_peaks
from onceedit_vllm.dense.search import adamw_logits, exact_tokens
from onceedit_vllm.dense.statistics import build_dense_map
from onceedit_vllm.fusion.carrier import Carrier
from onceedit_vllm.fusion.fuser import Fuser
from onceedit_vllm.fusion.lists import cut
from onceedit_vllm.fusion.reference import search
from onceedit_vllm.models import cached_model
from tests.unit.alignment.toys import StandInPack

pytestmark = pytest.mark.integration


def real_folder(name: str) -> Path:
    folder = cached_model(name)
    if folder is None:
        pytest.skip(f"{name} is not cached; `onceedit models get {name}` fetches it")
    return folder


@pytest.fixture(scope="module")
def alignment(tmp_path_factory: pytest.TempPathFactory) -> Alignment:
    pack = StandInPack(real_folder("smollm2-135m"), weight_token_id=49152)
    return align(pack, real_folder("gemma-3-270m"), cache=tmp_path_factory.mktemp("cache"))


def test_a_confident_plugin_is_followed_token_by_token(alignment: Alignment) -> None:
    """With alpha near 1 the greedy token is the partner of the plug-in's own."""
    torch.manual_seed(0)
    tokens = torch.randint(17, 49152, (16,))
    tokens[0] = int(alignment.anchors.plugin_ids[alignment.anchors.llm_ids == 1])  # EOS
    log_probs = torch.full((16, 49153), -20.0)
    log_probs[torch.arange(16), tokens] = 0.0
    log_probs = log_probs.log_softmax(dim=1)
    logits = 3 * torch.randn(16, 262144)
    search_rows = torch.arange(16) % 2 == 0
    fuser = Fuser(alignment, FusionConfig())
    lists = Carrier.of(alignment, 262144, 49153).carry(log_probs)
    fuser.fuse_rows_inplace(logits, torch.arange(16), lists, torch.full((16,), 0.97), search_rows)
    counts = fuser.counts()
    assert (counts.searched, counts.sampled, counts.left) == (8, 8, 0)
    assert torch.equal(logits.argmax(dim=1), alignment.carry[tokens])
    assert logits.isfinite().all()


def test_the_column_search_on_real_embeddings() -> None:
    """V = 49152 as in the model, 64 anchors, so that the dense reference stays affordable."""
    table = load_embeddings(real_folder("smollm2-135m"))
    anchors = torch.arange(300, 300 + 64 * 600, 600)
    for kind in ("deepen", "eq16", "calibrated"):
        relative_map = build_dense_map(kind, table, anchors)
        dense = relative_map.rows(torch.arange(len(table)))
        allowed = torch.ones(2, len(table), dtype=torch.bool)
        allowed[1, 1::5] = False
        columns = relative_map.columns(torch.tensor([3, 50]))
        torch.testing.assert_close(columns, dense[:, [3, 50]].T, atol=1e-6, rtol=1e-4)
        columns = dense[:, [3, 50]].T  # the same bits for both
        found = adamw_logits(columns, allowed, 64, steps=5, learning_rate=0.15)
        exact = exact_tokens(columns, allowed)
        for row, coordinate in enumerate((3, 50)):
            target = torch.zeros(64)
            target[coordinate] = 1.0
            double = search(
                dense.double(), target.double(), torch.zeros(len(table)).double(), allowed=allowed[row]
            )
            torch.testing.assert_close(found[row].double(), double, atol=1e-6, rtol=0)
            # The reference itself is 5e-5 off in float32 on the flattest of these columns.
            single = search(dense, target, torch.zeros(len(table)), allowed=allowed[row])
            torch.testing.assert_close(found[row], single, atol=1e-4, rtol=0)
            assert found[row].argmax() == double.argmax() == exact[row]


@pytest.fixture(scope="module")
def steps() -> Steps:
    """What both real models say while the LLM writes two answers and the plug-in reads along."""
    return record(real_folder("smollm2-135m"), real_folder("gemma-3-270m"), 24)


@pytest.mark.parametrize("kind", ["calibrated", "eq16", "deepen"])
def test_the_certificate_on_recorded_steps(kind: DenseKind, alignment: Alignment, steps: Steps) -> None:
    """Both real vocabularies, every 180th anchor, with and without masks, against the whole product."""
    anchors = [ids[::180] for ids in (alignment.anchors.plugin_ids, alignment.anchors.llm_ids)]
    tables = [load_embeddings(real_folder(name)) for name in ("smollm2-135m", "gemma-3-270m")]
    maps = [build_dense_map(kind, t, ids) for t, ids in zip(tables, anchors, strict=True)]
    torch.manual_seed(0)
    alpha = torch.rand(24, 1)
    weights = [alpha * steps.plugin_log_probs.exp(), (1 - alpha) * steps.llm_logits.softmax(dim=1)]
    sides = [Side(MapLines(each, 1 << 24), w) for each, w in zip(maps, weights, strict=True)]
    fused = maps[0].project(weights[0]) + maps[1].project(weights[1])
    for share in (1.0, 0.3):
        allowed = torch.rand(24, len(anchors[0])) < share
        allowed[:, 5] = True
        found = find_peaks(sides, allowed, top_k=16)
        best = fused.masked_fill(~allowed, -1.0).amax(dim=1)
        at_peak = fused.masked_fill(~allowed, -1.0).gather(1, found.coordinates[:, None])[:, 0]
        assert (at_peak >= best * (1 - 5e-5)).all()


@pytest.mark.parametrize("solver", ["exact", "adamw"])
def test_recorded_steps_get_the_most_probable_token(
    solver: Solver, alignment: Alignment, steps: Steps
) -> None:
    """Eq. 8 in float64, token by token, at the full width of both vocabularies."""
    torch.manual_seed(1)
    alpha = torch.rand(24)
    logits, cut_logits = steps.llm_logits.clone(), steps.llm_logits.clone()
    fuser, rows = Fuser(alignment, FusionConfig(solver=solver)), torch.arange(24)
    widths = logits.shape[1], steps.plugin_log_probs.shape[1]
    lists = Carrier.of(alignment, *widths).carry(steps.plugin_log_probs)
    assert fuser.fuse_rows_inplace(logits, rows, lists, alpha, alpha >= 0) == []
    carry = alignment.carry[: steps.plugin_log_probs.shape[1]]
    known = carry >= 0
    expected = (1 - alpha.double())[:, None] * steps.llm_logits.double().softmax(dim=1)
    carried = alpha.double()[:, None] * steps.plugin_log_probs.double().exp()
    expected.index_add_(1, carry[known], carried[:, known])
    assert torch.equal(logits.argmax(dim=1), expected.argmax(dim=1))
    asked = fuser.fuse_rows_inplace(cut_logits, rows, cut(lists), alpha, alpha >= 0)
    assert len(asked) < 12
    if asked:
        again = rows[asked]
        fuser.fuse_rows_inplace(cut_logits, again, lists.take(again), alpha[again], alpha[again] >= 0)
    assert torch.equal(cut_logits, logits)
