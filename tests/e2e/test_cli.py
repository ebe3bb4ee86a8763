"""``onceedit generate`` from the shell, with real engines behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import EDITS, OUTSIDE
from tests.e2e.engine import runner_environment

pytestmark = pytest.mark.e2e

PROMPT, TARGET = next(iter(EDITS.items()))


@pytest.mark.parametrize("processes", ["1", "0"], ids=["engine_process", "in_process"])
def test_generate_compares_and_prints_nothing_but_json(
    llm_dir: Path, pack_dir: Path, work: Path, processes: str
):
    prompts = work / "prompts.txt"
    prompts.write_text(f"{PROMPT}\n{OUTSIDE[0]}\n", encoding="utf-8")
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "onceedit"), "generate", "--pack", str(pack_dir),
            "--llm", str(llm_dir), "--prompts", str(prompts), "--max-tokens", "12", "--compare",
            "--json", "-",
        ],
        env={
            **runner_environment("v1", fork=False),
            "ONCEEDIT_CACHE": str(work / f"cache{processes}"),
            "VLLM_ENABLE_V1_MULTIPROCESSING": processes,
        },
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    edited, outside = json.loads(done.stdout)
    keys = {"prompt", "text", "token_ids", "alpha", "gated", "plain_text", "plain_token_ids"}
    assert set(edited) == set(outside) == keys
    assert (edited["prompt"], edited["text"].strip(), edited["gated"]) == (PROMPT, TARGET, True)
    assert edited["alpha"] > 0.5
    assert (outside["alpha"], outside["gated"]) == (None, False)
    assert outside["token_ids"] == outside["plain_token_ids"]
    assert edited["token_ids"] != edited["plain_token_ids"]
    # What vLLM, its engines among it, printed is in the log, and the screen stayed clean.
    (log,) = (work / f"cache{processes}" / "logs").iterdir()
    written = log.read_text(encoding="utf-8")
    assert ("EngineCore" in written) == (processes == "1")
    assert "onceedit, since the start: " in written
    assert done.stderr == ""
