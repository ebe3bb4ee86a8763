"""Small alignments and a stand-in for a pack, for the tests of alignment and fusion."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from onceedit_vllm.alignment.align import Alignment
from onceedit_vllm.alignment.anchors import Anchors
from onceedit_vllm.alignment.embeddings import load_embeddings
from onceedit_vllm.alignment.report import make_report
from onceedit_vllm.alignment.spelling import Spellings
from onceedit_vllm.alignment.tables import Tables
from onceedit_vllm.config import MapKind
from onceedit_vllm.dense.pair import DenseMaps
from onceedit_vllm.pack import EditPack


class StandInPack(EditPack):
    """What `align` reads of an EditPack: a plug-in's folder and its [WEIGHT] token."""

    weight_token_id: int

    def __init__(self, model_dir: Path, weight_token_id: int) -> None:
        # Past the frozen fields: a pack of files would take an edit.
        manifest = SimpleNamespace(weight_token_id=weight_token_id)
        vars(self).update(root=model_dir, manifest=manifest, weight_token_id=weight_token_id)

    @property
    def model_dir(self) -> Path:
        return self.root

    def base_embeddings(self) -> torch.Tensor:
        return load_embeddings(self.model_dir)


def toy_embeddings(vocab_size: int, width: int = 16, *, seed: int) -> torch.Tensor:
    """Anisotropic, as real ones are: a common direction plus noise."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(width, generator=generator)
    return common + torch.randn(vocab_size, width, generator=generator)


def toy_alignment(
    kind: MapKind, *, plugin_size: int = 23, llm_size: int = 31, num_anchors: int = 12, seed: int = 0
) -> Alignment:
    """An alignment of two invented vocabularies.

    Plug-in token 0 is EOS, paired with the LLM's 3; the last plug-in token is [WEIGHT]; some
    plug-in tokens share an LLM token.
    """
    generator = torch.Generator().manual_seed(seed)
    plugin_ids = torch.randperm(plugin_size - 2, generator=generator)[: num_anchors - 1] + 1
    others = torch.tensor([i for i in range(llm_size) if i != 3])
    llm_ids = others[torch.randperm(llm_size - 1, generator=generator)[: num_anchors - 1]]
    plugin_ids = torch.cat([torch.tensor([0]), plugin_ids.sort().values])
    llm_ids = torch.cat([torch.tensor([3]), llm_ids])
    anchors = Anchors(plugin_ids, llm_ids, "bytes")
    carry = torch.randint(0, llm_size, (plugin_size,), generator=generator)
    carry[plugin_ids] = llm_ids
    carry[-1] = -1
    dense = None
    if kind != "textual":
        embeddings = toy_embeddings(plugin_size, seed=seed + 1), toy_embeddings(llm_size, seed=seed + 2)
        dense = DenseMaps.build(kind, embeddings, (plugin_ids, llm_ids))
    tables = Tables(anchors, carry, Spellings.of({}), dense)
    return Alignment(
        *tables, make_report(tables, (plugin_size, llm_size), (16, 16), seconds=0.0, from_cache=False)
    )


def matrices(alignment: Alignment) -> tuple[torch.Tensor, torch.Tensor]:
    """R_s (V_s, C) and R_l (V_l, C), as the paper has them in memory."""
    report, dense = alignment.report, alignment.dense
    if dense is not None:
        every = torch.arange(report.plugin_vocab_size), torch.arange(report.llm_vocab_size)
        return dense.plugin_map.rows(every[0]), dense.llm_map.rows(every[1])
    # Anchors first, then the private coordinates of all other tokens of the LLM.
    anchors, size = alignment.anchors.llm_ids, report.llm_vocab_size
    private = torch.tensor([i for i in range(size) if i not in anchors], dtype=torch.int64)
    llm = torch.zeros(size, size)
    llm[torch.cat([anchors, private]), torch.arange(size)] = 1.0
    known = (alignment.carry >= 0)[:, None]
    return llm[alignment.carry] * known, llm
