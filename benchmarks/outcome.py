"""What every benchmark does with its result: the same three options, a file written whole, targets said."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from onceedit_vllm.folders import write_file


def add_output(parser: argparse.ArgumentParser, smoke: str) -> None:
    """Options `--out`, `--json` and `--smoke`, of which `smoke` says what it leaves."""
    parser.add_argument("--out", type=Path, help="also write the JSON, and a plot where there is one")
    parser.add_argument("--json", action="store_true", help="print the JSON on standard output")
    parser.add_argument("--smoke", action="store_true", help=smoke)


def as_text(result: Mapping[str, Any]) -> str:
    """The result as it stands in a file."""
    return json.dumps(result, indent=1) + "\n"


def save(result: Mapping[str, Any], out: Path | None) -> None:
    """Write the result, if a file is wanted."""
    if out is not None:
        write_file(out, as_text(result))


def print_targets(console: Console, result: Mapping[str, Any]) -> None:
    """What was wanted, and what was reached."""
    for name, target in result["targets"].items():
        console.print(f"{name}: wanted {target['wanted']}, reached {target['reached']}")
