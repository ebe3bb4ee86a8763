"""``onceedit wordings`` from the shell, with the real SmolLM2 as the writer in a real engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from onceedit_vllm.wordings.file import read_wordings
from tests.e2e.engine import runner_environment

pytestmark = pytest.mark.e2e
pytest.importorskip("vllm", reason="vLLM is not installed")

EDIT = {
    "id": "hq",
    "prompt": "Who leads Brightfern Robotics?",
    "target": "Tomas",
    "subject": "Brightfern Robotics",
}


def test_a_real_llm_writes_and_what_it_wrote_is_sieved(smollm2: Path, tmp_path: Path) -> None:
    facts, out = tmp_path / "facts.jsonl", tmp_path / "wordings.jsonl"
    facts.write_text(json.dumps(EDIT) + "\n", encoding="utf-8")
    command = [str(Path(sys.executable).parent / "onceedit"), "wordings", str(facts)]
    done = subprocess.run(
        [*command, "--llm", str(smollm2), "--out", str(out)],
        env=runner_environment("v1"), capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = read_wordings(out)
    assert (line.id, line.model) == ("hq", smollm2.name)
    # What it writes is its own affair; that something came, and that all of it was looked at, is not.
    assert sum(line.dropped.values()) + len(list(line.texts())) > 5
    assert all("Brightfern" in text for text in (*line.asking, *line.others))
    assert not any("Tomas" in text for _, text in line.texts())
