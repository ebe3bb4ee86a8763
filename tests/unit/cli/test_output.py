"""Standard output carries the answer and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from onceedit_vllm.cli.output import check_json_target, give_json, plain, size_text
from onceedit_vllm.errors import BadInputError

NOISY = """
import os, subprocess, sys
from onceedit_vllm.cli.output import give_json, reserved_stdout
print("before")
with reserved_stdout() as answer:
    print("noise from python")
    os.write(1, b"noise from C\\n")
    subprocess.run([sys.executable, "-c", "print('noise from a child')"])
    give_json({"é": 1}, "-", answer)
print("after")
"""


def test_noise_of_python_c_and_children_goes_to_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, check=True)
    before, *answer, after = done.stdout.splitlines()
    assert (before, after) == ("before", "after")
    assert json.loads("".join(answer)) == {"é": 1}
    assert done.stderr.count("noise") == 3


def test_json_files_are_whole_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("old")
    with pytest.raises(TypeError):
        give_json({"a": object()}, str(file), StringIO())
    assert file.read_text() == "old"
    give_json({"a": 1}, str(file), StringIO())
    assert json.loads(file.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_others_may_read_json_files_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        give_json({}, str(tmp_path / "out.json"), StringIO())
    finally:
        os.umask(before)
    assert (tmp_path / "out.json").stat().st_mode & 0o777 == 0o600


def test_unusable_json_targets_are_refused_early(tmp_path: Path) -> None:
    check_json_target(None)
    check_json_target("-")
    check_json_target(str(tmp_path / "new.json"))
    for bad in (tmp_path, tmp_path / "no" / "x.json"):
        with pytest.raises(BadInputError, match="--json"):
            check_json_target(str(bad))


def test_cells_are_one_line_and_without_markup() -> None:
    assert plain(" a\n[red]b ") == r"a \[red]b"
    assert plain("x" * 10, 6) == "xxx..."
    assert [size_text(size) for size in (1, 1500, 2_500_000, 3_000_000_000)] == [
        "1 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
    ]
