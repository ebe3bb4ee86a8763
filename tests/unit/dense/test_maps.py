from __future__ import annotations

from typing import Any

import pytest
import torch

from onceedit_vllm.config import DenseKind
from onceedit_vllm.dense import maps
from onceedit_vllm.dense.statistics import build_dense_map
from tests.unit.alignment.toys import toy_embeddings

KINDS: list[DenseKind] = ["eq16", "deepen", "calibrated"]
SIZE, ANCHORS = 60, torch.tensor([3, 0, 59, 17, 22, 41, 8])


def reference(kind: DenseKind, embeddings: torch.Tensor, anchors: torch.Tensor, tau: float) -> torch.Tensor:
    """The whole matrix, in float64, straight from the definitions."""
    e = embeddings.double()
    if kind == "calibrated":
        e = e - e.mean(dim=0)
    cosines = torch.nn.functional.cosine_similarity(e[:, None], e[anchors][None], dim=2)
    if kind == "deepen":
        cosines = 100 * cosines / cosines.norm(dim=1, keepdim=True)
    return (tau * cosines).softmax(dim=1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> DenseKind:
    return request.param


@pytest.fixture(params=["whole", "chunked"])
def made(request: pytest.FixtureRequest, kind: DenseKind, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    if request.param == "chunked":
        monkeypatch.setattr(maps, "_CHUNK_ENTRIES", 25)
    embeddings = toy_embeddings(SIZE, seed=5)
    relative_map = build_dense_map(kind, embeddings, ANCHORS)
    tau = float(relative_map.scale[0]) if kind == "calibrated" else 1.0
    return relative_map, reference(kind, embeddings, ANCHORS, tau).float()


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-4)


def test_rows_columns_and_projection_are_those_of_the_matrix(made: tuple[Any, ...]) -> None:
    relative_map, matrix = made
    ids = torch.tensor([5, 3, 3, 59])
    close(relative_map.rows(ids), matrix[ids])
    close(relative_map.rows(ids).sum(dim=1), torch.ones(4))
    coordinates = torch.tensor([6, 0])
    close(relative_map.columns(coordinates), matrix[:, coordinates].T)
    probs = torch.rand(3, SIZE)
    probs[:, 10:40] = 0.0
    close(relative_map.project(probs), probs @ matrix)
    close(relative_map.project(torch.zeros(2, SIZE)), torch.zeros(2, len(ANCHORS)))


def test_statistics_are_those_of_the_matrix(made: tuple[Any, ...]) -> None:
    relative_map, matrix = made
    close(relative_map.smallest, matrix.amin(dim=0))
    close(relative_map.largest, matrix.amax(dim=0))
    assert torch.equal(relative_map.own_token, matrix.argmax(dim=0))
    close(relative_map.row_smallest, matrix.amin(dim=1))
    top = matrix.topk(len(ANCHORS), dim=1).values
    close(relative_map.peak_values, top)
    close(matrix.gather(1, relative_map.peaks.long()), top)
    assert not relative_map.others.any(), "all entries are among the peaks"
    close(relative_map.self_mass(), matrix[ANCHORS, torch.arange(len(ANCHORS))])
    assert (relative_map.vocab_size, relative_map.num_coordinates) == matrix.shape


def test_entries_are_those_of_the_matrix(made: tuple[Any, ...]) -> None:
    relative_map, matrix = made
    tokens, coordinates = torch.tensor([[5, 3], [59, 0]]), torch.tensor([[6, 0, 6], [2, 2, 1]])
    expected = torch.stack([matrix[t][:, c] for t, c in zip(tokens, coordinates, strict=True)])
    close(relative_map.entries(tokens, coordinates), expected)


def test_of_long_rows_only_the_largest_entries_are_kept(kind: DenseKind) -> None:
    relative_map = build_dense_map(kind, toy_embeddings(90, seed=4), torch.arange(0, 90, 2))
    assert relative_map.peaks.shape == (90, maps.NUM_PEAKS)
    top = relative_map.rows(torch.arange(90)).topk(maps.NUM_PEAKS + 1, dim=1).values
    close(relative_map.peak_values, top[:, :-1])
    close(relative_map.others, top[:, -1])


@pytest.mark.parametrize("wanted", [0.5, 0.9])
def test_calibration_reaches_the_self_mass_asked_for(wanted: float) -> None:
    embeddings = toy_embeddings(300, seed=2)
    relative_map = build_dense_map("calibrated", embeddings, torch.arange(0, 300, 3), self_mass=wanted)
    assert float(relative_map.self_mass().median()) == pytest.approx(wanted, abs=1e-3)


def test_embeddings_are_kept_as_given_and_no_matrix_is() -> None:
    embeddings = toy_embeddings(SIZE, seed=1).to(torch.bfloat16)
    relative_map = build_dense_map("eq16", embeddings, ANCHORS)
    assert relative_map.embeddings is embeddings
    per_row = 3 * 4 + 7 * (4 + 4) + 2 * 4  # 7 peaks: there are no more anchors
    statistics = SIZE * per_row + 16 * 4 + len(ANCHORS) * (8 + 8 + 4 + 4)
    assert relative_map.bytes_held() == embeddings.numel() * 2 + statistics
    close(relative_map.rows(ANCHORS), reference("eq16", embeddings, ANCHORS, 1.0)[ANCHORS].float())


def test_a_zero_embedding_gives_a_uniform_row(kind: DenseKind) -> None:
    embeddings = toy_embeddings(SIZE, seed=1)
    embeddings[7] = 0.0
    if kind == "calibrated":
        embeddings -= embeddings.mean(dim=0)
        embeddings[7] = embeddings.mean(dim=0)
    relative_map = build_dense_map(kind, embeddings, ANCHORS)
    assert torch.isfinite(relative_map.rows(torch.arange(SIZE))).all()
    if kind != "calibrated":
        close(relative_map.rows(torch.tensor([7])), torch.full((1, len(ANCHORS)), 1 / len(ANCHORS)))


def test_progress_counts_every_row() -> None:
    done: list[int] = []
    build_dense_map("eq16", toy_embeddings(SIZE, seed=1), ANCHORS, advance=done.append)
    assert sum(done) == SIZE


def test_moving_keeps_the_map() -> None:
    relative_map = build_dense_map("deepen", toy_embeddings(SIZE, seed=1), ANCHORS)
    moved = relative_map.to(torch.device("cpu"))
    assert torch.equal(moved.rows(ANCHORS), relative_map.rows(ANCHORS))
    assert moved.kind == "deepen"
