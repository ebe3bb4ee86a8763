"""The benchmark of what the subjects find: each way of matching is counted for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.benchmarks.smoke import smoke

pytestmark = pytest.mark.integration


def test_smoke(tmp_path: Path) -> None:
    whole, parts = smoke("scope_recall.py", tmp_path / "recall.json")["cases"]
    assert (whole["matching"], parts["matching"]) == ("whole names", "parts of names")
    assert parts["strata"]["edit"] == {"asked": 2, "named": 2, "share": 1.0}
    assert whole["strata"]["edit"] == parts["strata"]["edit"] | {"ruled_out": 0}
    # "Professor Quill" is Ada Quill by a part of her name only.
    assert whole["strata"]["alias"]["named"] == 1
    assert parts["strata"]["alias"]["named"] == 2
    assert whole["strata"]["locality"]["named"] == 0
