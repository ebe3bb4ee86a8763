"""Fusion at the size of real vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onceedit_vllm.alignment.align import Alignment, align
from onceedit_vllm.alignment.embeddings import load_embeddings
from onceedit_vllm.alignment.statistics import build_dense_map
from onceedit_vllm.config import FusionConfig
from onceedit_vllm.fusion.fuser import Fuser
from onceedit_vllm.fusion.reference import search
from onceedit_vllm.fusion.search import adamw_logits, exact_logits
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
    counts = Fuser(alignment, FusionConfig()).fuse_rows_inplace(
        logits, torch.arange(16), log_probs, torch.full((16,), 0.97), search_rows
    )
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
        exact = exact_logits(columns, allowed)
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
            assert found[row].argmax() == double.argmax() == exact[row].argmax()
