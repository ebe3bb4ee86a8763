"""Whether the fast path says the same tokens: on random steps, recorded ones, and for the search alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from fusion_bench import naive
from fusion_bench.cut_lists import CutSteps
from fusion_bench.inputs import Inputs, random_inputs
from fusion_bench.product import Product
from fusion_bench.recorded import Steps
from fusion_bench.setups import Setup, matrix_of
from rich.progress import track
from torch import Tensor
from torch.nn.functional import one_hot

from onceedit_vllm.config import FusionConfig
from onceedit_vllm.dense.maps import DenseMap, chunks
from onceedit_vllm.dense.search import adamw_logits, exact_tokens

_BATCH, _RECORDED_BATCH = 128, 8
#: Of the search's logits, which lie between -0.7 and 0.7.
TOLERANCE = 1e-5


class _Fast:
    """Both solvers of the product, each with its own count of rows."""

    def __init__(self, setup: Setup) -> None:
        self.exact = Product(setup, FusionConfig(solver="exact"))
        self.adamw = Product(setup, FusionConfig(solver="adamw"))

    def tokens(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        found = []
        for product in (self.exact, self.adamw):
            logits = inputs.llm_logits.clone()
            product.step(inputs, logits)
            found.append(logits.argmax(dim=1))
        return found[0], found[1]


def random_agreement(setup: Setup, count: int) -> dict[str, Any]:
    """Whole steps against the dense baseline with autograd and AdamW, row by row."""
    fast, matrices, sizes = _Fast(setup), setup.matrices(), setup.sizes
    same, walked_same, disputed, disputed_right = 0, 0, 0, 0
    # Dense kinds take whole lists only.
    cut_steps, cut_same = CutSteps(setup) if setup.alignment.dense is None else None, 0
    for seed in track(range(-(-count // _BATCH)), description=f"Random steps, {setup.name}"):
        size = min(_BATCH, count - seed * _BATCH)
        inputs = random_inputs(size, sizes["V_s"], sizes["V"], 10_000 + seed).to(setup.device)
        exact, walked = fast.tokens(inputs)
        dense = naive.step(matrices, *inputs).argmax(dim=1)
        same += int((exact == dense).sum())
        walked_same += int((walked == dense).sum())
        if cut_steps is not None:
            cut_same += int((cut_steps.tokens(inputs) == exact).sum())
        for row in ((exact != dense) | (walked != dense)).nonzero()[:, 0].tolist():
            disputed += 1
            disputed_right += int(walked[row]) == naive.token_in_double(setup.matrices(), inputs, row)
    counts = fast.exact.fuser.counts()
    return {
        "name": setup.name,
        **sizes,
        "kind": setup.alignment.report.kind,
        "steps": count,
        "same_token_exact": same / count,
        "same_token_adamw": walked_same / count,
        # Where the float32 baseline disagrees with a solver, the baseline in float64 decides.
        "disputed": disputed,
        "disputed_won_by_adamw_in_float64": disputed_right,
        "settled": counts._asdict(),
        # Against the whole lists.
        "cut": [] if cut_steps is None else [cut_steps.report("alpha 0 to 1", cut_same)],
    }


def recorded_agreement(setup: Setup, steps: Steps, *, seed: int = 0) -> dict[str, Any]:
    """Recorded steps against the whole product, made chunk by chunk, and the paper's iterate behind it."""
    count = len(steps.llm_logits)
    alpha = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    fast = _Fast(setup)
    exact, walked = (
        torch.cat(part).cpu()
        for part in zip(
            *(fast.tokens(batch.to(setup.device)) for batch in _batches(steps, alpha)), strict=True
        )
    )
    targets = _whole_product(setup, steps, alpha)
    expected = _search_columns(setup, targets)
    counts = fast.exact.fuser.counts()
    return {
        "name": setup.name,
        **setup.sizes,
        "kind": setup.alignment.report.kind,
        "steps": count,
        "same_token_exact": float((exact == expected).double().mean()),
        "same_token_adamw": float((walked == expected).double().mean()),
        "settled": counts._asdict(),
        "hit_rates": fast.exact.fuser.hit_rates() or None,
        "cut": _recorded_cut(setup, steps, alpha, expected) if setup.alignment.dense is None else [],
    }


def _recorded_cut(setup: Setup, steps: Steps, alpha: Tensor, expected: Tensor) -> list[dict[str, Any]]:
    """The same steps with cut lists; and once more with the weight of a gate that has decided."""
    drawn, decided, whole = CutSteps(setup), CutSteps(setup), Product(setup, FusionConfig())
    same_drawn, same_decided = 0, 0
    for batch, tokens in zip(_batches(steps, alpha), expected.split(_RECORDED_BATCH), strict=True):
        inputs = batch.to(setup.device)
        same_drawn += int((drawn.tokens(inputs).cpu() == tokens).sum())
        ones = inputs._replace(alpha=torch.ones_like(inputs.alpha))
        logits = inputs.llm_logits.clone()
        whole.step(ones, logits)
        same_decided += int((decided.tokens(ones) == logits.argmax(dim=1)).sum())
    return [drawn.report("alpha 0 to 1", same_drawn), decided.report("alpha 1", same_decided)]


def _batches(steps: Steps, alpha: Tensor) -> Iterator[Inputs]:
    for start in track(range(0, len(alpha), _RECORDED_BATCH), description="Recorded steps"):
        part = slice(start, start + _RECORDED_BATCH)
        yield Inputs(steps.plugin_log_probs[part], steps.llm_logits[part], alpha[part])


def _whole_product(setup: Setup, steps: Steps, alpha: Tensor) -> Tensor:
    """Argmax of Eq. 8 over every coordinate, (n,)."""
    dense, carry = setup.alignment.dense, setup.alignment.carry[: steps.plugin_log_probs.shape[1]]
    plugin = steps.plugin_log_probs.exp() * alpha[:, None]
    llm = steps.llm_logits.softmax(dim=1) * (1 - alpha[:, None])
    if dense is None:
        return llm.index_add_(1, carry[carry >= 0], plugin[:, carry >= 0]).argmax(dim=1)
    fused = torch.zeros(len(alpha), dense.llm_map.num_coordinates)
    for relative_map, weights in ((dense.plugin_map, plugin), (dense.llm_map, llm)):
        weights = torch.nn.functional.pad(weights, (0, relative_map.vocab_size - weights.shape[1]))
        runs = list(chunks(relative_map.vocab_size, relative_map.num_coordinates, fused.device))
        for ids in track(runs, description=f"The whole product, {setup.name}"):
            fused.addmm_(weights[:, ids], relative_map.rows(ids))
    return fused.argmax(dim=1)


def _search_columns(setup: Setup, targets: Tensor) -> Tensor:
    """The paper's token for each target, by autograd in float64; one search per distinct target."""
    dense, width = setup.alignment.dense, setup.alignment.report.num_coordinates
    distinct, inverse = targets.unique(return_inverse=True)
    tokens = []
    for part in track(distinct.split(16), description="The paper's iterate"):
        columns = one_hot(part, width).float() if dense is None else dense.llm_map.columns(part)
        tokens.append(naive.search_columns_in_double(columns, width).argmax(dim=1))
    return torch.cat(tokens)[inverse]


def search_agreement(
    name: str, relative_map: DenseMap, device: torch.device, count: int, *, masked: bool = False
) -> dict[str, Any]:
    """The search alone: its iterate against the dense autograd iterate, on the same targets.

    Args:
        name: For tables.
        relative_map: R_l; its matrix is made for the time of the call.
        device: Where.
        count: Number of targets.
        masked: Leave a third of the tokens out of the search.
    """
    generator = torch.Generator().manual_seed(0)
    matrix = matrix_of(relative_map, device)
    open_tokens = torch.rand(len(matrix), generator=generator) > (1 / 3 if masked else -1)
    if masked:
        matrix = matrix[open_tokens.to(device)]
    targets = torch.randint(0, matrix.shape[1], (count,), generator=generator).to(device)
    worst, worst_in_double, same_adamw, same_exact, solvers_agree = 0.0, 0.0, 0, 0, 0
    for part in track(targets.split(100), description=f"The search, {name}"):
        dense = naive.search(matrix, part)
        # Forbidden tokens are there, with the largest entries of all, and must be passed over.
        columns = torch.full((len(part), len(open_tokens)), 9.0, device=device)
        columns[:, open_tokens] = matrix[:, part].T
        allowed = open_tokens.to(device).expand(len(part), -1)
        whole = adamw_logits(columns, allowed, matrix.shape[1], steps=5, learning_rate=0.15)
        walked = whole[:, open_tokens]
        best = exact_tokens(columns, allowed)
        exact = best - (~open_tokens).cumsum(0).to(device)[best]
        difference = float((walked - dense).abs().max())
        worst = max(worst, difference)
        if difference > TOLERANCE:
            # On flat columns float32 autograd rounds by more than that: the same in float64 decides.
            in_double = naive.search(matrix.double(), part)
            worst_in_double = max(worst_in_double, float((walked - in_double).abs().max()))
        same_adamw += int((walked.argmax(dim=1) == dense.argmax(dim=1)).sum())
        same_exact += int((exact == dense.argmax(dim=1)).sum())
        solvers_agree += int((exact == walked.argmax(dim=1)).sum())
    return {
        "name": name,
        "V": relative_map.vocab_size,
        "A": relative_map.num_coordinates,
        "kind": relative_map.kind,
        "masked": masked,
        "targets": count,
        "max_abs_difference_float32": worst,
        "max_abs_difference_of_disputed_float64": worst_in_double,
        "same_token_adamw": same_adamw / count,
        "same_token_exact": same_exact / count,
        "solvers_agree": solvers_agree / count,
    }
