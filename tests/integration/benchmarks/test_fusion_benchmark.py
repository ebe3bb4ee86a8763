"""The fusion benchmark runs, compares with an honest baseline, and can lose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fusion_bench import naive
from fusion_bench.sections import failures

from onceedit_vllm.fusion.reference import fused_step
from tests.unit.alignment.toys import matrices, toy_alignment

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "fusion.py"
CASE_FIELDS = {
    "V",
    "A",
    "batch",
    "kind",
    "dense_ms",
    "fast_ms",
    "speedup",
    "token_agreement",
    "bytes_held",
    "bytes_dense",
    "certified_rate",
}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_baseline_is_the_papers_step() -> None:
    alignment = toy_alignment("calibrated")
    maps = matrices(alignment)
    torch.manual_seed(0)
    log_probs, logits = torch.randn(5, 23).log_softmax(dim=1), 3 * torch.randn(5, 31)
    alpha = torch.tensor([0.0, 0.3, 0.6, 0.9, 1.0])
    found = naive.step(naive.Matrices(*maps), log_probs, logits, alpha)
    for row in range(5):
        p_s, p_l = log_probs[row].exp(), logits[row].softmax(dim=0)
        expected = fused_step(p_s, maps[0], p_l, maps[1], float(alpha[row]))
        torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=0)


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "results" / "fusion.json"
    done = run("--smoke", "--json", "--out", out)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = json.loads(done.stdout)
    assert printed == json.loads(out.read_text())
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert printed["failures"] == []
    assert all(entry["measured"] <= 1 for entry in printed["targets"] if "bytes" in entry["what"])
    assert set(printed["skipped"]) <= {"pair", "certificate", "recorded", "memory", "graph"}
    assert {case["kind"] for case in printed["cases"]} == {"textual", "calibrated", "eq16", "deepen"}
    for case in printed["cases"]:
        assert case.keys() >= CASE_FIELDS
        assert case["token_agreement"] == 1.0
        assert case["dense_ms"] > 0
        assert case["speedup"] == pytest.approx(case["dense_ms"] / case["fast_ms"])
        assert 0 <= case["certified_rate"] <= 1
    assert {"V", "A", "batch"} <= printed["growth"].keys()
    for entry in printed["random"]:
        assert entry["same_token_exact"] == entry["same_token_adamw"] == 1.0
    textual = [entry for entry in printed["random"] if entry["kind"] == "textual"]
    assert [bool(entry["cut"]) for entry in printed["random"]].count(True) == len(textual) == 1
    assert [entry["inputs"] for entry in printed["lists"]] == ["gated", "mixed"]
    for entry in textual + printed["lists"]:
        (cut,) = entry["cut"]
        assert entry["same_token_exact"] == cut["same_token"] == 1.0
        assert cut["certified_rate"] == 1 - cut["whole_rows_requested"] / cut["steps"]
        assert cut["steps"] == entry["steps"]
    assert {"command", "commit", "machine", "versions"} <= printed.keys()


def test_without_json_it_prints_tables() -> None:
    done = run("--smoke", "--sections", "search")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "max_abs" in done.stdout
    assert not done.stdout.startswith("{")


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "fusion.json"
    assert run("--smoke", "--sections", "search", "--out", out).returncode == 0
    first = json.loads(out.read_text())
    done = run("--smoke", "--sections", "search", "random", "--out", out, "--resume", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    second = json.loads(done.stdout)
    assert second["search"] == first["search"]
    assert [entry["steps"] for entry in second["random"]] == [40] * 4
    assert second["earlier_runs"][0]["parts"] == ["search"]
    assert second["earlier_runs"][0]["command"] == first["command"] != second["command"]


def test_it_can_lose() -> None:
    right = {
        "cases": {"name": "x", "batch": 1, "token_agreement": 1.0},
        "random": {"name": "x", "disputed": 3, "disputed_won_by_adamw_in_float64": 3, "cut": []},
        "recorded": {"name": "x", "same_token_adamw": 1.0, "same_token_exact": 1.0, "cut": []},
        "lists": {"name": "x", "same_token_exact": 1.0, "cut": [{"same_token": 1.0}]},
        "search": {"name": "x", "max_abs_difference_of_disputed_float64": 1e-6},
    }
    assert failures({part: [entry] for part, entry in right.items()}) == []
    assert failures({"cases": [right["cases"] | {"token_agreement": None}]}) == [], "nothing to compare with"
    wrong = [
        ("cases", "token_agreement", 0.99),
        ("random", "disputed_won_by_adamw_in_float64", 2),
        ("recorded", "same_token_adamw", 0.999),
        ("recorded", "same_token_exact", 0.999),
        ("search", "max_abs_difference_of_disputed_float64", 1e-4),
        ("lists", "same_token_exact", 0.999),
        *(
            (part, "cut", [{"same_token": 1.0}, {"same_token": 0.999}])
            for part in ("random", "recorded", "lists")
        ),
    ]
    for part, field, value in wrong:
        assert len(failures({part: [right[part] | {field: value}]})) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threads", "0"), "take at least 1"),
        (("--sections", "nothing"), "invalid choice"),
        (("--device", "tpu"), "invalid choice"),
        (("--resume", "--smoke"), "--resume needs --out FILE"),
        pytest.param(
            ("--device", "cuda"),
            "finds no GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments: tuple[str, str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
