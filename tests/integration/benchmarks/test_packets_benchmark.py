"""The benchmark of the packets' way runs, and measures both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import smoke

pytest.importorskip("ray", reason="Ray is not installed")

pytestmark = pytest.mark.integration


def test_smoke(tmp_path: Path) -> None:
    out = tmp_path / "results" / "packets.json"
    printed = smoke("packets.py", out)
    assert [(case["rows"], case["way"]) for case in printed["cases"]] == [
        (rows, way) for rows in (1, 8, 32) for way in ("ray call", "socket")
    ]
    assert all(0 < case["p50_ms"] <= case["p99_ms"] for case in printed["cases"])
