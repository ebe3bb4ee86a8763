"""The examples do what they say, on toy models."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import EDITS
from tests.e2e.engine import runner_environment

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPT, TARGET = next(iter(EDITS.items()))


def run_example(name: str, *args: str | Path, cache: Path, fork: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, args)],
        env={**runner_environment("v1", fork=fork), "ONCEEDIT_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_offline(llm_dir: Path, pack_dir: Path, work: Path):
    out = run_example("offline.py", "--pack", pack_dir, "--llm", llm_dir, PROMPT, cache=work / "cache")
    assert f"'{PROMPT}' -> ' {TARGET}'" in out


def test_sampling(llm_dir: Path, pack_dir: Path, work: Path):
    out = run_example(
        "sampling.py", "--pack", pack_dir, "--llm", llm_dir, "--prompt", PROMPT, cache=work / "cache"
    )
    assert out.count(f"'{PROMPT}' -> ' {TARGET}'") == 3


def test_per_request(llm_dir: Path, pack_dir: Path, work: Path):
    out = run_example(
        "per_request.py", "--pack", pack_dir, "--llm", llm_dir, "--prompt", PROMPT, cache=work / "cache"
    )
    assert f"as the gate says: '{PROMPT}' -> ' {TARGET}'" in out
    assert f"weight forced to 1: '{PROMPT}' -> ' {TARGET}'" in out
    assert f"edits off: '{PROMPT}' -> ' {TARGET}'" not in out
    # The engine's last words; nothing of its warm-up is in them.
    assert re.findall(r"onceedit, since the start: (.*)", out)[-1].startswith("gated 2, searched ")


def test_shared_host(llm_dir: Path, pack_dir: Path, work: Path):
    """Two engines of the same toy under two names: what an engine is of is the others' tests."""
    pytest.importorskip("ray", reason="Ray is not installed")
    other = work / "the same llm"
    other.symlink_to(llm_dir)
    args = ("--pack", pack_dir, "--llm", llm_dir, other, "--", PROMPT)
    # Ray's threads are running by the time it starts its engines: what is forked then hangs.
    out = run_example("shared_host.py", *args, cache=work / "cache", fork=False)
    for name in (llm_dir, other):
        assert f"{name}: '{PROMPT}' -> ' {TARGET}'" in out


def test_make_pack(work: Path):
    from onceedit_vllm import EditPack
    from onceedit_vllm.testing import save_toy_model

    plugin, out = save_toy_model(work / "example-plugin", seed=5), work / "example-pack"
    run_example(
        "make_pack.py",
        "--plugin",
        plugin,
        "--out",
        out,
        "--lr",
        "3e-3",
        "--epochs",
        "30",
        cache=work / "cache",
    )
    assert [record.target for record in EditPack.load(out).edits] == ["Tarsk", "Ada Quill"]
