"""The forcing processor against vLLM's own batch updates, without an engine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from onceedit_vllm.errors import BadInputError
from onceedit_vllm.runner.asking import FORCING

pytestmark = pytest.mark.integration

vllm = pytest.importorskip("vllm", reason="vLLM is not installed")

VOCAB = 8


def params(gold: list[int] | None, key: str = "a", **more: Any) -> Any:
    extra = None if gold is None else {FORCING: {"key": key, "ids": gold}}
    return vllm.SamplingParams(temperature=0.0, max_tokens=len(gold or [0]), extra_args=extra, **more)


def processor(log: Path, *runner_args: Any) -> Any:
    from onceedit_vllm.runner.forcing import TeacherForcing

    config: Any = SimpleNamespace(additional_config={FORCING: {"log": str(log)}})
    return TeacherForcing(config, *(runner_args or (torch.device("cpu"), False)))


def update(**changes: Any) -> Any:
    from vllm.v1.sample.logits_processor import BatchUpdate

    values: dict[str, Any] = {"batch_size": 4, "removed": (), "added": (), "moved": ()}
    return BatchUpdate(**(values | changes))


def peaked(*winners: int) -> torch.Tensor:
    logits = torch.zeros(len(winners), VOCAB)
    logits[torch.arange(len(winners)), torch.tensor(winners)] = 5.0
    return logits


def lines(log: Path) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_v1_notes_the_winner_and_forces_the_gold_token(tmp_path: Path) -> None:
    forcing = processor(tmp_path / "log")
    outputs: list[list[int]] = [[], []]
    forcing.update_state(
        update(added=[(0, params([3, 4]), [1], outputs[0]), (1, params(None), [1], outputs[1])])
    )
    logits = forcing.apply(peaked(6, 7))
    assert logits.argmax(-1).tolist() == [3, 7]
    # A row that nobody forces keeps its very bits.
    assert torch.equal(logits[1], peaked(6, 7)[1])
    # The last steps of a prompt that is read in chunks are sampled and thrown away: the place is noted anew.
    forcing.apply(peaked(5, 7))
    outputs[0].append(3)
    assert lines(tmp_path / "log") == []
    assert int(forcing.apply(peaked(4, 7))[0].argmax()) == 4
    assert lines(tmp_path / "log") == [{"key": "a", "winners": [5, 4]}]


def test_v1_follows_moves_and_swaps(tmp_path: Path) -> None:
    from vllm.v1.sample.logits_processor import MoveDirectionality

    forcing = processor(tmp_path / "log")
    forcing.update_state(update(added=[(0, params([2], "a"), [1], []), (3, params([5], "b"), [1], [])]))
    forcing.update_state(update(moved=[(3, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    forcing.update_state(update(moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert forcing.apply(peaked(7, 7, 7, 7)).argmax(-1).tolist() == [5, 2, 7, 7]
    forcing.update_state(update(removed=[0]))
    assert forcing.apply(peaked(7, 7)).argmax(-1).tolist() == [7, 2]


def test_v2_tells_places_by_lengths(tmp_path: Path) -> None:
    lengths = {"prompt_len": np.array([0, 3, 0]), "prefill_len": np.array([0, 3, 0])}
    states = SimpleNamespace(**{name: SimpleNamespace(np=value) for name, value in lengths.items()})
    forcing = processor(tmp_path / "log", states)
    assert forcing.add_request(1, params([2, 6])) is True
    assert forcing.add_request(2, params(None)) is False

    def step(length: int, winner: int) -> int:
        ctx = SimpleNamespace(idx_mapping_np=np.array([2, 1]), seq_lens_upper_bound_np=np.array([9, length]))
        logits = forcing.apply(peaked(7, winner), ctx)
        assert torch.equal(logits[0], peaked(7, winner)[0])
        return int(logits[1].argmax())

    # In the middle of its prompt nothing is forced.
    assert step(2, 5) == 5
    assert step(3, 5) == 2
    assert step(4, 4) == 6
    assert lines(tmp_path / "log") == [{"key": "a", "winners": [5, 4]}]
    # The slot is taken by another.
    assert forcing.add_request(1, params(None)) is False
    assert step(5, 4) == 4


def test_a_step_that_fails_leaves_the_logits(tmp_path: Path) -> None:
    forcing = processor(tmp_path)  # a folder: nothing can be appended to it
    forcing.update_state(update(added=[(0, params([2]), [1], [])]))
    assert forcing.apply(peaked(7)).shape == (1, VOCAB)


def test_what_cannot_be_forced_is_refused() -> None:
    from onceedit_vllm.runner.forcing import TeacherForcing

    TeacherForcing.validate_params(params([1, 2]))
    TeacherForcing.validate_params(params(None))
    wrong = vllm.SamplingParams(max_tokens=3, extra_args={FORCING: {"key": "a", "ids": [1]}})
    with pytest.raises(BadInputError, match="as many tokens as max_tokens"):
        TeacherForcing.validate_params(wrong)
    with pytest.raises(BadInputError, match="additional_config"):
        TeacherForcing(SimpleNamespace(additional_config={}), "device", False)  # type: ignore[arg-type]
