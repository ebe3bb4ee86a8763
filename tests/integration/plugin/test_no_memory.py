"""A plug-in for which there is no memory: it is said, what was there stays, nothing half-loaded remains."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from onceedit_vllm.pack import EditPack
from onceedit_vllm.plugin.packets import Open
from onceedit_vllm.plugin.wire import Step, VocabularyBytes, encode
from tests.integration.plugin import short_of_memory
from tests.integration.plugin.test_ray_host import write_pack
from tests.unit.plugin.client_contract import PROMPTS, ToyPlugIn, plug_in

pytestmark = [pytest.mark.integration, pytest.mark.alone]

__all__ = ["plug_in"]  # the fixture

#: What Python and torch may have taken meanwhile; the keys and values are twelve times as many.
_NOISE_MIB = 64


@pytest.fixture(scope="module")
def pack(plug_in: ToyPlugIn, tmp_path_factory: pytest.TempPathFactory) -> EditPack:
    return write_pack(plug_in, tmp_path_factory.mktemp("packs") / "pack")


def in_a_process(act: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Of its own, because its limit stays with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(act, *arguments).result(timeout=240)


def is_said(error: str) -> bool:
    return "there is no memory on cpu for 0.81 GB" in error and "plugin.kv_cache_bytes" in error


def test_a_local_host_does_not_start_and_says_why(pack: EditPack) -> None:
    found = in_a_process(short_of_memory.start, pack.root)
    assert found["large"].startswith("ModelError: ")
    assert is_said(found["large"])
    assert found["grown_mib"] < _NOISE_MIB
    assert found["small"] == ""


def test_a_pack_beside_the_active_one_is_refused_and_the_active_one_goes_on(
    pack: EditPack, plug_in: ToyPlugIn
) -> None:
    vocabulary = msgspec.msgpack.encode(VocabularyBytes.of(plug_in.vocabulary))
    step = encode(Step(1, [Open(1, plug_in.llm_ids(PROMPTS[0]), alpha=1.0)]))
    found = in_a_process(short_of_memory.load, pack.root, vocabulary, step)
    assert is_said(found["error"])
    assert found["grown_mib"] < _NOISE_MIB
    assert (found["held"], found["packs"], found["epoch"]) == (0, 1, 1)
    assert found["states"] == ["SPEAKING"] * 3
    assert found["epoch_afterwards"] > 1


def test_an_actor_lives_to_say_it_and_holds_nothing(pack: EditPack) -> None:
    found = in_a_process(short_of_memory.actor, Path(pack.root))
    assert is_said(found["failure"])
    assert found["address"] == ""
    assert found["grown_mib"] < _NOISE_MIB
