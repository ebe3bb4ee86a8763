"""Another pack while an engine serves, on both runners."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EDITS, OTHER_TARGET, OUTSIDE
from tests.e2e.engine import Engine
from tests.e2e.test_engine import FIXED, GREEDY, texts, token_ids

pytestmark = pytest.mark.e2e

PROMPT, TARGET = next(iter(EDITS.items()))


def wait_until_loaded(engine: Engine) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while (status := engine.rpc("onceedit_status"))["state"] == "loading":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return dict(status)


@pytest.fixture(autouse=True)
def _first_pack_afterwards(edited: Engine, pack_dir: Path) -> Iterator[None]:
    """The engine is shared with the other tests."""
    yield
    if edited.rpc("onceedit_status")["pack"] != str(pack_dir.resolve()):
        edited.rpc("onceedit_rollback")
        wait_until_loaded(edited)
        edited.rpc("onceedit_activate")


def test_running_requests_finish_with_their_pack_and_new_ones_get_the_other(
    edited: Engine, plain: Engine, pack_dir: Path, other_pack_dir: Path
):
    untouched = list(EDITS)[1]
    edited.rpc("onceedit_load", str(other_pack_dir))
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]  # served while it is loading
    assert wait_until_loaded(edited)["state"] == "loaded"
    before = edited.rpc("onceedit_status")["epoch"]
    first, then = [PROMPT, OUTSIDE[0], untouched], [PROMPT, untouched]
    # Two of the answer's tokens are written with the first pack.
    outputs = edited.rpc_midway(first, then, GREEDY, "onceedit_activate", after_steps=3)
    assert texts(outputs)[0] == TARGET
    assert texts(outputs)[2] == EDITS[untouched]
    assert texts(outputs)[3] == OTHER_TARGET
    assert texts(outputs)[4] != EDITS[untouched]  # no edit of the second pack
    expected = plain.generate([OUTSIDE[0], untouched], FIXED)
    assert token_ids(edited.generate([OUTSIDE[0], untouched], FIXED)) == token_ids(expected)
    # V2 does not say that a request has ended: it is noticed after a few steps without it.
    status = edited.rpc("onceedit_status")
    assert (status["epoch"], status["edits"], status["packs_in_memory"]) == (before + 1, 1, 1)
    assert status["pack"] == str(other_pack_dir)
    edited.rpc("onceedit_rollback")
    wait_until_loaded(edited)
    edited.rpc("onceedit_activate")
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]


def test_a_pack_that_does_not_fit_is_refused_and_the_old_one_stays(edited: Engine, llm_dir: Path):
    edited.rpc("onceedit_load", str(llm_dir))
    status = wait_until_loaded(edited)
    assert status["state"] == "failed"
    assert "PackError" in status["error"]
    assert "no pack is loaded and waiting" in edited.rpc("onceedit_activate")["refused"]
    assert texts(edited.generate([PROMPT], GREEDY)) == [TARGET]
