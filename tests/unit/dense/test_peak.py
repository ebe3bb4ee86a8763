"""The certificate is never wrong: against the whole product in float64, on distributions made to fool it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from onceedit_vllm.config import DenseKind
from onceedit_vllm.dense import bounds, peak
from onceedit_vllm.dense.bounds import Side
from onceedit_vllm.dense.lines import MapLines
from onceedit_vllm.dense.maps import DenseMap
from onceedit_vllm.dense.peak import ALL_LISTS, DENSE, FINALISTS, LISTS, ROWS, Peaks, find_peaks
from onceedit_vllm.dense.statistics import build_dense_map
from tests.unit.alignment.toys import toy_embeddings

KINDS: list[DenseKind] = ["calibrated", "eq16", "deepen"]
V_S, V_L, A = 300, 400, 200


def whole(relative_map: DenseMap) -> torch.Tensor:
    """The map as a matrix, in float64 from its definition."""
    unit = relative_map.embeddings.double() - relative_map.center.double()
    unit /= unit.norm(dim=1, keepdim=True)
    return (relative_map.scale.double()[:, None] * unit @ unit[relative_map.anchor_ids].T).softmax(dim=1)


class Pair:
    """Two toy maps, and the same as matrices."""

    def __init__(self, kind: DenseKind, width: int = 16) -> None:
        generator = torch.Generator().manual_seed(3)
        maps = [
            build_dense_map(
                kind,
                toy_embeddings(size, width, seed=size),
                torch.randperm(size, generator=generator)[:A],
            )
            for size in (V_S, V_L)
        ]
        self.lines = [MapLines(each, 1 << 20) for each in maps]
        self.matrices = [whole(each) for each in maps]
        # Coordinates closer than this are the same to any float32 computation.
        self.tie = max(each.rounding for each in maps) + 1e-6
        self.top_k = 16

    def fused(self, p_s: torch.Tensor, p_l: torch.Tensor) -> torch.Tensor:
        """(n, A) float64."""
        return p_s.double() @ self.matrices[0] + p_l.double() @ self.matrices[1]

    def find(self, p_s: torch.Tensor, p_l: torch.Tensor, allowed: torch.Tensor | None = None) -> Peaks:
        """The peaks, after checking that each is the largest allowed coordinate."""
        if allowed is None:
            allowed = torch.ones(len(p_s), A, dtype=torch.bool)
        before = p_s.clone(), p_l.clone()
        sides = [Side(self.lines[0], p_s), Side(self.lines[1], p_l)]
        found = find_peaks(sides, allowed, self.top_k)
        assert torch.equal(p_s, before[0])
        assert torch.equal(p_l, before[1])
        fused = self.fused(p_s, p_l).masked_fill(~allowed, -1.0)
        best = fused.amax(dim=1)
        at_peak = fused.gather(1, found.coordinates[:, None])[:, 0]
        assert (at_peak >= best * (1 - self.tie)).all(), found
        return found


PAIRS: dict[str, Pair] = {kind: Pair(kind) for kind in KINDS}
# As wide as real embeddings, and with a temperature that makes rounding matter.
PAIRS["sharp"] = Pair("calibrated", width=576)


#: Tokens listed, tokens of the row steps, most narrowed, most finalists: every attempt gets its turn.
SIZES = {
    "as shipped": (16, peak.ROW_STEPS, peak.MOST_NARROWED, peak.MOST_FINALISTS),
    "small": (2, (2, 8), 20, 5),
    "all lists": (1, (0,), 1, 1),
    "no lists": (1, (4, 16, 64), 100, 2),
    "dense at once": (1, (1,), 1, 1),
}


@pytest.fixture(params=SIZES)
def sizes(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, sizes: str) -> Pair:
    top_k, rows, narrowed, finalists = SIZES[sizes]
    monkeypatch.setattr(PAIRS[request.param], "top_k", top_k)
    monkeypatch.setattr(peak, "ROW_STEPS", rows)
    monkeypatch.setattr(peak, "MOST_NARROWED", narrowed)
    monkeypatch.setattr(peak, "MOST_FINALISTS", finalists)
    for room in (peak, bounds):
        monkeypatch.setattr(room, "_ENTRIES_AT_ONCE", 3000)
    return PAIRS[request.param]


def one_hot(size: int, token: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor([token]), size).float()


def tied(pair: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights under which the only two allowed coordinates are equal."""
    matrix = pair.matrices[1]
    first, second = 7, 120
    differences = matrix[:, first] - matrix[:, second]
    up, down = int(differences.argmax()), int(differences.argmin())
    share = float(-differences[down] / (differences[up] - differences[down]))
    allowed = torch.zeros(1, A, dtype=torch.bool)
    allowed[0, [first, second]] = True
    return share * one_hot(V_L, up) + (1 - share) * one_hot(V_L, down), allowed


def test_random_distributions_from_flat_to_sharp(pair: Pair) -> None:
    torch.manual_seed(0)
    attempts: Counter[int] = Counter()
    for sharpness in (0.0, 0.5, 2.0, 5.0, 20.0):
        alpha = torch.rand(12, 1)
        p_s = alpha * (sharpness * torch.randn(12, V_S)).softmax(dim=1)
        p_l = (1 - alpha) * (sharpness * torch.randn(12, V_L)).softmax(dim=1)
        allowed = torch.rand(12, A) < 0.7
        allowed[:, 11] = True
        attempts.update(pair.find(p_s, p_l).attempts.tolist())
        attempts.update(pair.find(p_s, p_l, allowed).attempts.tolist())
    assert attempts[LISTS]


def test_every_attempt_gets_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    monkeypatch.setattr(peak, "ROW_STEPS", (0, 2, 8))
    monkeypatch.setattr(peak, "MOST_NARROWED", 120)
    monkeypatch.setattr(peak, "MOST_FINALISTS", 3)
    seen: set[int] = set()
    for pair in PAIRS.values():
        monkeypatch.setattr(pair, "top_k", 2)
        for sharpness in (0.1, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 20.0):
            p_s = 0.5 * (sharpness * torch.randn(40, V_S)).softmax(dim=1)
            p_l = 0.5 * (sharpness * torch.randn(40, V_L)).softmax(dim=1)
            seen |= set(pair.find(p_s, p_l).attempts.tolist())
        seen |= set(pair.find(torch.zeros(1, V_S), *tied(pair)).attempts.tolist())
    assert seen == {LISTS, ALL_LISTS, ROWS, FINALISTS, DENSE}


def test_flat_distributions(pair: Pair) -> None:
    for alpha in (0.0, 0.5, 1.0):
        pair.find(torch.full((1, V_S), alpha / V_S), torch.full((1, V_L), (1 - alpha) / V_L))


def test_two_equal_peaks(pair: Pair) -> None:
    """Half on one anchor's token of the plug-in, half on another's of the LLM."""
    for first, second in ((5, 17), (40, 3), (100, 199)):
        for share in (0.5, 0.4999999, 0.5000001):
            p_s = share * pair.matrices[0][:, first].argmax().eq(torch.arange(V_S)).float()[None]
            p_l = (1 - share) * pair.matrices[1][:, second].argmax().eq(torch.arange(V_L)).float()[None]
            pair.find(p_s, p_l)


def test_all_on_one_token(pair: Pair) -> None:
    for token in range(0, V_L, 37):
        found = pair.find(torch.zeros(1, V_S), one_hot(V_L, token))
        assert found.coordinates == pair.matrices[1][token].argmax()


def test_a_rest_that_turns_the_winner(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heavy token and, behind the part that is looked at, the one that helps its rival most.

    As weight moves from the one to the other the winner turns at some point; close to it on either
    side, where the margin just holds and just does not, the answer must be right.
    """
    monkeypatch.setattr(pair, "top_k", 1)
    matrix = pair.matrices[1]
    for heavy in range(0, V_L, 29):
        winner = matrix[heavy].argmax()
        rival = matrix[heavy].topk(2).indices[1]
        helper = (matrix[:, rival] - matrix[:, winner]).argmax()

        def weights(share: float, heavy: int = heavy, helper: torch.Tensor = helper) -> torch.Tensor:
            return (1 - share) * one_hot(V_L, heavy) + share * one_hot(V_L, int(helper))

        low, high = 0.0, 0.5
        for _ in range(40):
            middle = (low + high) / 2
            turned = pair.fused(torch.zeros(1, V_S), weights(middle))[0].argmax() != winner
            low, high = (low, middle) if turned else (middle, high)
        for offset in (-1e-2, -1e-3, -1e-4, -1e-5, 1e-5, 1e-4, 1e-3, 1e-2):
            share = min(0.499, max(0.0, low + offset))
            pair.find(torch.zeros(1, V_S), weights(share))


def test_a_margin_that_just_holds_and_just_does_not(pair: Pair, sizes: str) -> None:
    """The residual at which the lists give up, found by bisection: both sides of it are right."""

    def weights(residual: float) -> torch.Tensor:
        return (1 - residual) * one_hot(V_L, 31) + residual / V_L

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        settled = pair.find(torch.zeros(1, V_S), weights(middle)).attempts == LISTS
        low, high = (middle, high) if settled else (low, middle)
    if sizes != "as shipped":
        assert 0 < low < 1, "somewhere the lists must give up"
    for residual in (low * 0.999, low, high, min(1.0, high * 1.001)):
        pair.find(torch.zeros(1, V_S), weights(residual))


def test_two_coordinates_equal_in_float64(pair: Pair) -> None:
    """Either will do, and nothing breaks."""
    pair.find(torch.zeros(1, V_S), *tied(pair))


def test_only_allowed_coordinates_win(pair: Pair) -> None:
    torch.manual_seed(4)
    p_l = (6 * torch.randn(30, V_L)).softmax(dim=1)
    allowed = torch.rand(30, A) < 0.02
    allowed[torch.arange(30), torch.randint(0, A, (30,))] = True
    found = pair.find(torch.zeros(30, V_S), p_l, allowed)
    assert allowed.gather(1, found.coordinates[:, None]).all()
