"""What attaching a real LLM takes: memory of its own process, with nothing else in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="memory is read off /proc, which is Linux's"
    ),
]

ROOT = Path(__file__).parents[3]
LLM_TABLE = 262144 * 640 * 2
MEBIBYTE = 2**20

PRELUDE = """
import json, sys, time
from pathlib import Path
import torch
from transformers import AutoTokenizer
from onceedit_vllm.alignment.align import align
from onceedit_vllm.alignment.embeddings import load_embeddings, tensor_fingerprint
from tests.unit.alignment.toys import StandInPack

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

plugin, llm, cache = map(Path, sys.argv[1:])
"""

ATTACH_TWICE = """
imported = memory("VmRSS")
seconds = []
for _ in range(2):
    started = time.perf_counter()
    report = align(StandInPack(plugin, weight_token_id=49152), llm, cache=cache).report
    seconds.append(time.perf_counter() - started)
grown = memory("VmHWM") - imported
print(json.dumps({"grown": grown, "seconds": seconds, "report": report.model_dump(mode="json")}))
"""

MAP_THE_TABLE = """
before = memory("RssAnon")
table = load_embeddings(llm)
tensor_fingerprint(table)
table[::4096].float().sum()
print(json.dumps({"table": table.nbytes, "private": memory("RssAnon") - before}))
"""


def run(code: str, plugin: Path, llm: Path, cache: Path) -> dict[str, object]:
    """Run code after the imports, in a process of its own; what it prints last is its answer."""
    command = [sys.executable, "-W", "ignore", "-c", PRELUDE + code, str(plugin), str(llm), str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(answer))
    return answer


def test_attaching_takes_less_than_500_mebibytes(smollm2: Path, gemma3: Path, tmp_path: Path) -> None:
    """All of it is what transformers takes, for a moment, to parse Gemma's tokenizer.json twice: 465 MiB."""
    answer = run(ATTACH_TWICE, smollm2, gemma3, tmp_path)
    report = answer["report"]
    assert isinstance(report, dict)
    assert isinstance(answer["grown"], int)
    assert answer["grown"] < 500 * MEBIBYTE
    assert report["from_cache"]
    assert report["tflops"] == report["llm_tokens"] == 0
    assert report["paper_tokens"] == pytest.approx(34475, abs=1)


def test_the_llms_table_is_never_copied(smollm2: Path, gemma3: Path, tmp_path: Path) -> None:
    answer = run(MAP_THE_TABLE, smollm2, gemma3, tmp_path)
    assert answer["table"] == LLM_TABLE
    assert isinstance(answer["private"], int)
    assert answer["private"] < LLM_TABLE / 10
