"""Lists cut to a few tokens: what is certified, what is asked for again, and whether the tokens agree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from fusion_bench.inputs import RANGES, Inputs, random_inputs
from fusion_bench.product import Product
from fusion_bench.setups import Setup
from rich.progress import track
from torch import Tensor

from onceedit_vllm.config import FusionConfig
from onceedit_vllm.fusion import reference
from onceedit_vllm.fusion.lists import cut

_BATCH = 128


class CutSteps:
    """Greedy steps with cut lists, as a run takes them: a row that is not certified comes again, whole."""

    def __init__(self, setup: Setup) -> None:
        self._product = Product(setup, FusionConfig())
        self._steps = 0
        self._requests = 0

    def tokens(self, inputs: Inputs) -> Tensor:
        """(n,) int64, the greedy tokens in the end."""
        whole, logits = self._product.carry(inputs), inputs.llm_logits.clone()
        lists = cut(whole)
        self._steps += len(logits)
        asked = self._product.fuse(logits, lists, inputs)
        self._requests += len(asked)
        if asked:
            entries = torch.tensor(asked, device=logits.device)
            again, rows = Inputs(*(part[entries] for part in inputs)), logits[entries]
            self._product.fuse(rows, whole.take(entries), again)
            logits[entries] = rows
        return logits.argmax(dim=1)

    def report(self, weights: str, num_same: int) -> dict[str, Any]:
        """The numbers so far, with what alpha was, and in how many steps the token was right."""
        return {
            "weights": weights,
            "steps": self._steps,
            "same_token": num_same / self._steps,
            "certified_rate": 1 - self._requests / self._steps,
            "whole_rows_requested": self._requests,
        }


def list_agreement(setup: Setup, count: int, family: str) -> dict[str, Any]:
    """Textual steps, whole and cut, against the reference's fusion in float64."""
    product, cut_steps, sizes = Product(setup, FusionConfig()), CutSteps(setup), setup.sizes
    carry = setup.alignment.carry.to(setup.device)
    maps = _map(carry, sizes["V"]), _map(torch.arange(sizes["V"], device=setup.device), sizes["V"])
    same_whole, same_cut = 0, 0
    for inputs in track(
        _batches(setup, count, family),
        total=-(-count // _BATCH),
        description=f"Lists, {setup.name}, {family}",
    ):
        logits = inputs.llm_logits.clone()
        product.step(inputs, logits)
        p_s, p_l = inputs.plugin_log_probs.double().exp(), inputs.llm_logits.double().softmax(dim=1)
        expected = reference.fuse(p_s, maps[0], p_l, maps[1], inputs.alpha.double()).argmax(dim=1)
        same_whole += int((logits.argmax(dim=1) == expected).sum())
        same_cut += int((cut_steps.tokens(inputs) == expected).sum())
    return {
        "name": setup.name,
        **sizes,
        "inputs": family,
        "steps": count,
        "same_token_exact": same_whole / count,
        "cut": [cut_steps.report("alpha {} to {}".format(*RANGES[family][2]), same_cut)],
    }


def _map(carry: Tensor, width: int) -> Tensor:
    """A textual map as a sparse matrix of ones, token -> LLM token; every token has a place."""
    places = torch.stack([torch.arange(len(carry), device=carry.device), carry])
    ones = torch.ones(len(carry), dtype=torch.float64, device=carry.device)
    return torch.sparse_coo_tensor(places, ones, (len(carry), width), check_invariants=True)


def _batches(setup: Setup, count: int, family: str) -> Iterator[Inputs]:
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)
        inputs = random_inputs(size, setup.sizes["V_s"], setup.sizes["V"], 20_000 + start, family)
        yield inputs.to(setup.device)
