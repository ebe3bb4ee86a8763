"""What `onceedit calibrate` refuses before it loads anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from onceedit_vllm.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say where the pack goes, with one of the two"),
        (("--out", "x", "--in-place"), "say where the pack goes, with one of the two"),
        (("--out", "x", "--max-false-openings", "2"), "2: is no rate; give one between 0 and 1"),
        (("--out", "x", "--json", "nowhere/x.json"), "there is no folder"),
        (("--out", "x"), "there is no such folder; make a pack"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["calibrate", str(tmp_path / "pack"), *arguments])
    assert found.exit_code in (1, 2)
    assert message in " ".join(found.output.split())
