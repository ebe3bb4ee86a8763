"""What the host is told of lists that must not be cut."""

from __future__ import annotations

from typing import Any

import pytest

from onceedit_vllm.plugin.packets import Open
from onceedit_vllm.runner.row import Row
from tests.unit.plugin.fakes import EDITED, FakeRuntime
from tests.unit.runner.fakes import some_step


@pytest.mark.parametrize("needs_whole", [False, True])
def test_a_row_that_needs_whole_lists_is_opened_so(
    needs_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = some_step(FakeRuntime())
    told: list[Any] = []
    monkeypatch.setattr(step._plugin, "send", told.extend)
    step.begin([Row([EDITED], needs_whole=needs_whole)])
    assert told == [Open(0, [EDITED], [], whole=needs_whole)]
